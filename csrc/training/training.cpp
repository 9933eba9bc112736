// The training loop of the two-layer network.
#include "training.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "../board.h"
#include "../kernels.h"
#include "../matmul.h"
#include "../parts.h"
#include "../threads.h"
#include "../two_layer.h"

namespace twolayer {

namespace {

// From so many steps on, w2's columns are worth being copied.
constexpr Index W2_APART_STEPS = 4;

template <class Piece>
const Piece* find(const Piece* pieces, int count, const std::string& name, const char* kind) {
  std::string known;
  for (int i = 0; i < count; ++i) {
    if (name == pieces[i].name) return pieces + i;
    known += (i ? ", " : "") + std::string(pieces[i].name);
  }
  throw std::invalid_argument(std::string(kind) + " must be one of " + known + ", got " + name);
}

template <class T>
void take_sums(const SumsTaker<T>& taker, T* c, Index c_stride, Index rows, Index cols,
               const Sum<T>* sums, Index stride) {
  const auto& update = static_cast<const Update<T>&>(taker);
  update.apply(update, c - update.parameter, c_stride, rows, cols, sums, stride);
}

}  // namespace

bool OptimizerOptions::operator==(const OptimizerOptions& o) const {
  return lr == o.lr && weight_decay == o.weight_decay && momentum == o.momentum &&
         dampening == o.dampening && beta1 == o.beta1 && beta2 == o.beta2 && eps == o.eps &&
         alpha == o.alpha && nesterov == o.nesterov && amsgrad == o.amsgrad &&
         centered == o.centered && maximize == o.maximize && wide == o.wide;
}

template <class T>
Training<T>::Training(const TrainingPlan<T>& given)
    : plan(given),
      optimizer(find(kernels().of<T>().optimizers, kernels().of<T>().optimizer_count,
                     plan.optimizer, "optimizer")),
      loss_kernel(find(kernels().of<T>().losses, kernels().of<T>().loss_count, plan.loss, "loss")),
      layout(layout_of(plan, *loss_kernel)),
      slices(layout.threads),
      batches(plan, layout),
      penalty(plan) {
  const Index batch = plan.batch, hidden = plan.hidden_features, out = plan.out_features;
  const Index outputs = layout.outputs_first ? out * layout.output_stride : batch * out;
  bias2.at_least(out * Index(sizeof(S)));
  for (Index i = 0; i < layout.threads; ++i) {
    Slice& slice = slices[i];
    slice.features = layout.samples_along
                         ? part(hidden, layout.threads, i)
                         : vector_part(hidden, kernels().of<T>().lanes, layout.threads, i);
    slice.w2.begin(plan.parameters[W2], out, slice.features);
    const Index features = slice.features.size();
    const Index size =
        layout.samples_along ? features * row_stride<T>(batch) : batch * row_stride<T>(features);
    slice.hidden.at_least(size * Index(sizeof(T)));
    slice.hidden_grad.at_least(size * Index(sizeof(T)));
    for (int which : {0, 1}) {
      slice.outputs[which].at_least(outputs * Index(sizeof(S)));
      output_parts[which].push_back(slice.outputs[which].template data<S>());
    }
    if (loss_kernel->target == Target::classes) slice.softmax.at_least(outputs * Index(sizeof(S)));
    if (i == 0 || layout.own_losses) slice.output_grad.at_least(outputs * Index(sizeof(T)));
    slice.bias1_grad.at_least(features * Index(sizeof(double)));
    slice.bias2_grad.at_least(out * Index(sizeof(double)));
  }
  for (int i = 0; i < PARAMETERS; ++i) {
    progress.options[i] = plan.parameters[i].options;
    progress.taken[i] = plan.parameters[i].steps;
  }
}

// Calls PHASE for each thread. What is called stands in the program and in `this`: no thread has to
// read, to get there, what another one has just written.
template <class T>
template <void (Training<T>::*PHASE)(Index)>
void Training<T>::on_all_threads() {
  if (layout.threads == 1) return (this->*PHASE)(0);
  const auto call = [](void* self, Index thread) {
    (static_cast<Training*>(self)->*PHASE)(thread);
  };
  run_parts(layout.threads, {call, this});
}

template <class T>
Matrix<T> Training<T>::hidden_view(const ScratchBuffer& buffer, const Slice& slice) const {
  T* data = buffer.template data<T>();
  if (layout.samples_along) return {data, 1, row_stride<T>(plan.batch)};
  return {data, row_stride<T>(slice.features.size()), 1};
}

template <class T>
void Training<T>::find_numbers(const Steps& steps, Index step) {
  numbers.stop_at_nonfinite = steps.stop_at_nonfinite;
  numbers.weight = batches.weight();
  numbers.coefficient = penalty.coefficient(numbers.weight);
  int last = -1;  // the last parameter that moves, so far
  for (int i = 0; i < PARAMETERS; ++i) {
    if (!plan.parameters[i].moves) continue;
    OptimizerOptions& options = progress.options[i];
    if (steps.rates) {
      const double* rates = steps.rates + (step * PARAMETERS + i) * 2;
      options.lr = rates[0];
      options.momentum = options.beta1 = rates[1];
    }
    // The powers in Adam's factors are not cheap.
    const bool same =
        last >= 0 && progress.taken[last] == progress.taken[i] && progress.options[last] == options;
    numbers.factors_of[i] = same ? numbers.factors_of[last] : i;
    if (!same) numbers.factors[i] = optimizer->factors(options, progress.taken[i] + 1);
    last = i;
  }
  const Matrix<T>& b2 = plan.parameters[B2].values;
  S* bias = bias2.template data<S>();
  if (b2) {
    kernels().of<T>().gather(nullptr, 1, plan.out_features, b2, {bias, 0, 1});
  } else {
    std::fill(bias, bias + plan.out_features, S(0));
  }
}

template <class T>
void Training<T>::forward(Index thread, const Batch<T>& batch, int outputs) {
  const Slice& slice = slices[thread];
  const OwnSamples<T> samples = batches.samples_of(thread, batch);
  const Range f = slice.features;
  const Matrix<T> h = hidden_view(slice.hidden, slice);
  const Matrix<T> w1 = plan.parameters[W1].values.from_row(f.begin);
  const Matrix<T> w2 = slice.w2.current().values.transposed();
  const Matrix<T> b1 = plan.parameters[B1].values;
  Matmul<T> p;
  p.M = batch.rows, p.N = f.size(), p.K = plan.in_features;
  p.a = samples.x, p.b = Matrix<const T>(w1).transposed(), p.c = h;
  if (b1) p.col_bias = {b1.data + f.begin, 1};
  p.relu = true;
  if (samples.transposed_packed) {
    p = transposed(p);
    p.packed_b = samples.transposed_packed;
  }
  matmul(p, 1);
  Matmul<T> q;
  q.M = batch.rows, q.N = plan.out_features, q.K = f.size();
  q.a = h, q.b = w2;
  S* y = output_parts[outputs][thread];
  q.suspend = true;
  q.partial = {y, layout.output_stride, 1};
  if (layout.outputs_first) q.partial = q.partial.transposed();
  q.c = {sizeof(T) == sizeof(S) ? reinterpret_cast<T*>(y) : nullptr, q.partial.row_stride,
         q.partial.col_stride};
  matmul(layout.outputs_first ? transposed(q) : q, 1);
}

template <class T>
void Training<T>::find_loss(Index thread) {
  Slice& slice = slices[thread];
  const Batch<T>& batch = batches.current();
  LossTask<T> task;
  const Targets& targets = batches.targets_of(thread);
  task.samples = batches.samples_of_loss(batch.rows, thread);
  task.outputs = plan.out_features;
  task.outputs_first = layout.outputs_first;
  task.stride = layout.output_stride;
  task.parts = output_parts[numbers.outputs].data();
  task.part_count = layout.threads;
  task.scratch = slice.softmax.template data<S>();
  task.bias = bias2.template data<S>();
  task.target = targets.values.template data<S>();
  task.cls = targets.classes.template data<Class<T>>();
  task.weight = batches.are_weighted() ? targets.weights.template data<S>() : nullptr;
  const LossScales scales =
      loss_kernel->scales(plan.loss_options.mean, numbers.weight, task.outputs);
  task.loss_scale = scales.loss;
  task.grad_scale = scales.grad;
  task.grad = slices[layout.own_losses ? thread : 0].output_grad.template data<T>();
  task.options = plan.loss_options;
  if (plan.parameters[B2].moves && (thread == 0 || !layout.own_losses)) {
    task.bias_grad = slice.bias2_grad.template data<double>();
    std::fill_n(task.bias_grad, task.outputs, 0.0);
  }
  slice.loss = loss_kernel->run(task);
}

template <class T>
Update<T> Training<T>::update_of(ParameterIndex which, const Parameter<T>& p,
                                 double* squares) const {
  Update<T> update;
  update.take = &take_sums<T>;
  update.apply = optimizer->update;
  update.parameter = p.values.data;
  std::copy(p.states, p.states + MAX_STATES, update.states);
  update.factors = numbers.factors[numbers.factors_of[which]];
  if ((which == W1 || which == W2) && plan.penalty != 0) {
    update.penalty = numbers.coefficient;
    update.squares = squares;
  }
  return update;
}

template <class T>
void Training<T>::move_bias(ParameterIndex which, Range features, const double* grad) {
  constexpr Index COUNT = 256;
  S sums[COUNT];
  const Update<T> update = update_of(which, plan.parameters[which], nullptr);
  for (Index begin = features.begin; begin < features.end; begin += COUNT) {
    const Index count = std::min(COUNT, features.end - begin);
    for (Index i = 0; i < count; ++i) sums[i] = S(grad[begin - features.begin + i]);
    update.apply(update, begin, count, 1, count, sums, count);
  }
}

template <class T>
void Training<T>::find_hidden_grad(Slice& slice, const Batch<T>& batch, Matrix<const T> grad_y) {
  const Range f = slice.features;
  double* const bias1_grad = slice.bias1_grad.template data<double>();
  std::fill_n(bias1_grad, f.size(), 0.0);
  Matmul<T> p;
  p.M = batch.rows, p.N = f.size(), p.K = plan.out_features;
  p.a = grad_y;
  p.b = slice.w2.current().values;
  p.c = hidden_view(slice.hidden_grad, slice);
  p.mask = hidden_view(slice.hidden, slice);
  if (plan.parameters[B1].moves) p.col_sum = bias1_grad;
  matmul(p, 1);
}

template <class T>
void Training<T>::backward(Index thread) {
  Slice& slice = slices[thread];
  const Batch<T>& batch = batches.current();
  const Range f = slice.features;
  const Parameter<T>* parameters = plan.parameters;
  const T* dy = slices[layout.own_losses ? thread : 0].output_grad.template data<T>();
  const Index stride = layout.output_stride;
  const Matrix<const T> grad_y =
      layout.outputs_first ? Matrix<const T>{dy, 1, stride} : Matrix<const T>{dy, stride, 1};
  slice.squares = 0;
  if (parameters[W1].moves || parameters[B1].moves) {  // before w2 moves
    find_hidden_grad(slice, batch, grad_y);
  }
  if (parameters[W2].moves) {
    const Parameter<T>& w2 = slice.w2.current();
    const Update<T> update = update_of(W2, w2, &slice.squares);
    Matmul<T> p;
    p.M = plan.out_features, p.N = f.size(), p.K = batch.rows;
    p.a = grad_y.transposed(), p.b = hidden_view(slice.hidden, slice);
    p.c = w2.values;
    p.taker = &update;
    matmul(p, 1);
  }
  if (parameters[B1].moves) move_bias(B1, f, slice.bias1_grad.template data<double>());
  if (parameters[W1].moves) {
    const Update<T> update = update_of(W1, parameters[W1], &slice.squares);
    const OwnSamples<T> samples = batches.samples_of(thread, batch);
    Matmul<T> p;
    p.M = f.size(), p.N = plan.in_features, p.K = batch.rows;
    p.a = Matrix<const T>(hidden_view(slice.hidden_grad, slice)).transposed(), p.b = samples.x;
    p.packed_b = samples.packed;
    p.c = parameters[W1].values.from_row(f.begin);
    p.taker = &update;
    matmul(p, 1);
  }
  if (thread == 0 && parameters[B2].moves) {
    move_bias(B2, {0, plan.out_features}, slice.bias2_grad.template data<double>());
  }
}

// What a thread reads of a network in the forward of the next step it has moved itself.
template <class T>
void Training<T>::backward_and_on(Index thread) {
  backward(thread);
  if (numbers.next_batch) batches.bring_in(thread);
  if (!numbers.goes_on) return;
  forward(thread, numbers.next_batch ? batches.next() : batches.current(), 1 - numbers.outputs);
}

template <class T>
bool Training<T>::may_move(double loss) const {
  return !numbers.stop_at_nonfinite || std::isfinite(loss);
}

// All threads find the same loss, to the bit.
template <class T>
void Training<T>::whole_step(Index thread) {
  find_loss(thread);
  if (may_move(slices[thread].loss)) backward_and_on(thread);
}

// Of what each thread has found of the loss and the second bias's gradient.
template <class T>
double Training<T>::sum_up_losses() {
  double loss = 0;
  double* const bias2_grad = slices[0].bias2_grad.template data<double>();
  for (const Slice& slice : slices) {
    loss += slice.loss;
    if (&slice == slices.data() || !plan.parameters[B2].moves) continue;
    const double* part = slice.bias2_grad.template data<double>();
    for (Index j = 0; j < plan.out_features; ++j) bias2_grad[j] += part[j];
  }
  return loss;
}

// The step whose forward has been, and the forward of the one after it if there are more. False
// where the loss is no finite number; nothing has moved then.
template <class T>
bool Training<T>::step(const Steps& steps, Index index, bool more, double* loss) {
  find_numbers(steps, index);
  // The next batch comes in after this one's backward, unless it is this one again.
  numbers.next_batch = more && (steps.order || steps.first[index + 1] != steps.first[index] ||
                                steps.size[index + 1] != steps.size[index]);
  // Rows that the threads bring in for each other are there only when all have.
  numbers.goes_on = more && (layout.own_batches || !steps.order);
  if (numbers.next_batch) batches.take(index + 1);
  if (numbers.stop_at_nonfinite && penalty.may_overflow() && !is_penalty_finite()) {
    *loss = std::numeric_limits<double>::infinity();
    return false;
  }
  if (layout.own_losses) {
    on_all_threads<&Training::whole_step>();
    *loss = slices[0].loss;
    if (!may_move(*loss)) return false;
  } else {
    on_all_threads<&Training::find_loss>();
    *loss = sum_up_losses();
    if (!may_move(*loss)) return false;
    on_all_threads<&Training::backward_and_on>();
  }
  double squares = 0;
  for (const Slice& slice : slices) squares += slice.squares;
  *loss += penalty.after_step(numbers.coefficient, squares);
  for (int i = 0; i < PARAMETERS; ++i) progress.taken[i] += plan.parameters[i].moves;
  if (numbers.next_batch) batches.turn();
  if (numbers.goes_on) numbers.outputs = 1 - numbers.outputs;
  if (more && !numbers.goes_on) on_all_threads<&Training::forward>();
  return true;
}

// Before a step: its squares come with the update, which is then too late.
template <class T>
bool Training<T>::is_penalty_finite() const {
  const Parameter<T>& w1 = plan.parameters[W1];
  if (!has_finite_squares(w1.values, plan.hidden_features, plan.in_features)) return false;
  return std::all_of(slices.begin(), slices.end(), [&](const Slice& slice) {
    return has_finite_squares(slice.w2.current().values, plan.out_features, slice.features.size());
  });
}

template <class T>
Outcome Training<T>::run(const TrainingData<T>& data, const Steps& steps, double* losses) {
  Outcome outcome;
  if (steps.count == 0) return outcome;
  penalty.begin_run();
  const Index end = now() + Index(std::min(steps.seconds, 1e9) * 1e9);
  const auto take_steps = [&] {
    batches.begin(data, steps);
    batches.take(0);
    on_all_threads<&Training::bring_in>();
    batches.turn();
    on_all_threads<&Training::forward>();
    for (bool more = true; more; ++outcome.done) {
      outcome.bad_sample = batches.bad_sample();
      if (outcome.bad_sample >= 0) break;
      more = outcome.done + 1 < steps.count && now() < end;
      outcome.nonfinite = !step(steps, outcome.done, more, losses + outcome.done);
      if (outcome.nonfinite) break;
    }
  };
  struct Apart {  // however the run ends, the columns are back then
    std::vector<Slice>& slices;
    ~Apart() {
      for (Slice& slice : slices) slice.w2.put_back();
    }
  } apart{slices};
  if (layout.w2_apart && steps.count >= W2_APART_STEPS) {
    for (Slice& slice : slices) slice.w2.set_apart();
  }
  in_one_region(layout.threads, take_steps, Region::many_pieces);
  return outcome;
}

template class Training<float>;
template class Training<double>;
template class Training<bfloat16>;
template class Training<float16>;

}  // namespace twolayer
