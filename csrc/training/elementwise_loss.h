// The walk over outputs whose losses are independent of each other: squared error and binary cross
// entropy are such.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// `Rule::element(y, t, pos_weight, grad)` returns the losses of a vector of outputs and writes
// their gradients. Where outputs come first, vectors run along the samples, so weights are vectors
// and biases single numbers; else the other way round.
template <class Rule, class T>
double elementwise_loss(const LossTask<T>& task) {
  using S = Sum<T>;
  const bool first = task.outputs_first;
  const Range rows = first ? Range{0, task.outputs} : task.samples;
  const Range cols = first ? task.samples : Range{0, task.outputs};
  const S scale = S(task.grad_scale);
  double total = 0;
  for (Index row = rows.begin; row < rows.end; ++row) {
    const Vec<S> row_weight = (!first && task.weight ? task.weight[row] : S(1)) - Vec<S>{};
    const Vec<S> row_bias = (first ? task.bias[row] : S(0)) - Vec<S>{};
    const S* pos_weight = task.options.pos_weight;
    const Vec<S> row_pos_weight = (first && pos_weight ? pos_weight[row] : S(1)) - Vec<S>{};
    Vec<S> losses, grads;
    const auto step = [&](Index col, int n) __attribute__((always_inline)) {
      const Index at = row * task.stride + col;
      Vec<S> y = load_first(task.parts[0] + at, n);
      for (Index i = 1; i < task.part_count; ++i) y += load_first(task.parts[i] + at, n);
      y += first ? row_bias : load_first(task.bias + col, n);
      Vec<S> weight = row_weight, positive = row_pos_weight;
      if (first && task.weight) weight = load_first(task.weight + col, n);
      if (!first && pos_weight) positive = load_first(pos_weight + col, n);
      Vec<S> grad;
      const Vec<S> loss =
          Rule::template element<S>(y, load_first(task.target + at, n), positive, grad);
      losses += first_lanes<S>(weight * loss, n);
      grad = grad * weight * scale;
      narrow(task.grad + at, grad, n);
      if (first) grads += first_lanes<S>(grad, n);
    };
    for_exact_parts<S>(cols.begin, cols.end, [&](Index begin, Index end) {
      losses = grads = Vec<S>{};
      for_vectors<lanes<S>>(begin, end, step);
      total += double(horizontal_sum<S>(losses));
      if (first && task.bias_grad) task.bias_grad[row] += double(horizontal_sum<S>(grads));
    });
  }
  if (!first && task.bias_grad) {
    const Matrix<const T> grad = {task.grad + rows.begin * task.stride, task.stride, 1};
    column_sums<T>(rows.size(), task.outputs, grad, task.bias_grad);
  }
  return total * task.loss_scale;
}
