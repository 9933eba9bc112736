// Cross entropy of softmax with class indices, as torch.nn.CrossEntropyLoss and as scikit-learn's
// log_loss. Vectors run along the samples, so the outputs must come first.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// Of up to a vector of samples: the sum of e^(y - largest), y - largest for the sample's class, and
// the sum over the outputs of their weights times y - largest.
template <class S>
struct Softmax {
  Vec<S> sum, at_class, weighted;
};

// Leaves e^(y - largest) behind in the scratch.
template <class T>
__attribute__((always_inline)) inline Softmax<Sum<T>> softmax(const LossTask<T>& task, Index sample,
                                                              int n, BitsOf<Sum<T>> cls) {
  using S = Sum<T>;
  Vec<S> largest = {};
  for (Index output = 0; output < task.outputs; ++output) {
    const Index at = output * task.stride + sample;
    Vec<S> y = load_first(task.parts[0] + at, n);
    for (Index i = 1; i < task.part_count; ++i) y += load_first(task.parts[i] + at, n);
    y += task.bias[output] - Vec<S>{};
    store_first(task.scratch + at, y, n);
    largest = output == 0 ? y : (largest < y ? y : largest);
  }
  Softmax<S> result = {};
  for (Index output = 0; output < task.outputs; ++output) {
    S* at = task.scratch + output * task.stride + sample;
    const Vec<S> y = load_first(at, n) - largest;
    const Vec<S> e = exponential<S>(y);
    result.sum += e;
    result.at_class = cls == typename Format<S>::Bits(output) ? y : result.at_class;
    const S weight = task.options.class_weight ? task.options.class_weight[output] : S(1);
    result.weighted += weight * y;
    store_first(at, e, n);
  }
  return result;
}

template <class T>
__attribute__((always_inline)) inline BitsOf<Sum<T>> load_classes(const LossTask<T>& task,
                                                                  Index sample, int n) {
  BitsOf<Sum<T>> cls = {};
  for (int i = 0; i < n; ++i) cls[i] = task.cls[sample + i];
  return cls;
}

// The walk over samples. `Rule::loss` returns the loss of a vector of samples from their softmax;
// the gradient of output c is own (p - [c is the class]) + shared (total p - w_c), with the
// sample's `own` and the smoothing's `shared`.
template <class Rule, class T>
double cross_entropy_loss(const LossTask<T>& task) {
  using S = Sum<T>;
  const LossOptions<T>& options = task.options;
  const S smoothing = S(options.label_smoothing), shared = smoothing / S(task.outputs);
  S total_weight = 0;
  for (Index output = 0; output < task.outputs; ++output) {
    total_weight += options.class_weight ? options.class_weight[output] : S(1);
  }
  double total = 0;
  const auto step = [&](Index sample, int n) __attribute__((always_inline)) {
    const BitsOf<S> cls = load_classes(task, sample, n);
    const Softmax<S> soft = softmax(task, sample, n, cls);
    Vec<S> own = (S(1) - smoothing) - Vec<S>{};
    if (options.class_weight) {
      for (int i = 0; i < n; ++i) own[i] *= cls[i] < 0 ? S(0) : options.class_weight[cls[i]];
    }
    Vec<S> loss = own * Rule::template loss<S>(soft);
    if (smoothing != 0) {
      loss += shared * (total_weight * logarithm<S>(soft.sum) - soft.weighted);
    }
    Vec<S> weight = S(1) - Vec<S>{};
    if (task.weight) weight = load_first(task.weight + sample, n);
    loss = cls < 0 ? Vec<S>{} : loss * weight;
    total += double(horizontal_sum<S>(first_lanes<S>(loss, n)));
    const Vec<S> scale = weight * S(task.grad_scale), inverse = S(1) / soft.sum;
    for (Index output = 0; output < task.outputs; ++output) {
      const Index at = output * task.stride + sample;
      const Vec<S> p = load_first(task.scratch + at, n) * inverse;
      const Vec<S> hit = cls == typename Format<S>::Bits(output) ? S(1) - Vec<S>{} : Vec<S>{};
      Vec<S> grad = own * (p - hit);
      if (smoothing != 0) {
        const S own_weight = options.class_weight ? options.class_weight[output] : S(1);
        grad += shared * (total_weight * p - own_weight);
      }
      grad = cls < 0 ? Vec<S>{} : grad * scale;
      narrow(task.grad + at, grad, n);
      if (task.bias_grad) store_first(task.scratch + at, grad, n);
    }
  };
  for_vectors<lanes<S>>(task.samples.begin, task.samples.end, step);
  for (Index output = 0; task.bias_grad && output < task.outputs; ++output) {
    const S* const grads = task.scratch + output * task.stride;
    for_exact_parts<S>(task.samples.begin, task.samples.end, [&](Index begin, Index end) {
      Vec<S> sum = {};
      for_vectors<lanes<S>>(begin, end,
                            [&](Index sample, int n) { sum += load_first(grads + sample, n); });
      task.bias_grad[output] += double(horizontal_sum<S>(sum));
    });
  }
  return total * task.loss_scale;
}

struct CrossEntropy {
  static constexpr const char* name = "cross_entropy";
  static constexpr Target target = Target::classes;

  static LossScales scales(bool mean, double weights, Index) {
    const double scale = mean ? 1 / weights : 1;
    return {scale, scale};
  }

  template <class S>
  static Vec<S> loss(const Softmax<S>& soft) {
    return logarithm<S>(soft.sum) - soft.at_class;
  }

  template <class T>
  static double run(const LossTask<T>& task) {
    return cross_entropy_loss<CrossEntropy, T>(task);
  }
};

// Of a probability clipped at the type's epsilon.
struct SklearnLogLoss {
  static constexpr const char* name = "sklearn_log_loss";
  static constexpr Target target = Target::classes;

  static LossScales scales(bool, double weights, Index) { return {1 / weights, 1 / weights}; }

  template <class S>
  static Vec<S> loss(const Softmax<S>& soft) {
    const Vec<S> p = exponential<S>(soft.at_class) / soft.sum;
    return -logarithm<S>(SklearnBinaryLogLoss::clipped<S>(p));
  }

  template <class T>
  static double run(const LossTask<T>& task) {
    return cross_entropy_loss<SklearnLogLoss, T>(task);
  }
};
