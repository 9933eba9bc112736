// The training loop of the two-layer network.
#include "training.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "../board.h"
#include "../kernels.h"
#include "../matmul.h"
#include "../threads.h"
#include "../two_layer.h"

namespace twolayer {

namespace {

// A batch of up to this many bytes, packed in either direction, is packed once by each thread.
constexpr Index OWN_BATCH_BYTES = 1 << 20;
// Multiply-adds of a step below which a second thread costs more than it may bring: three meetings
// of the threads, of 2 to 10 us in all, by where the processors are. It cannot be found out during
// a run, whose bits depend on the number of slices.
constexpr Index WORK_PER_THREAD = 300000;

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

Range part(Index size, Index count, Index index) {
  return {size * index / count, size * (index + 1) / count};
}

// Parts of whole vectors.
Range vector_part(Index size, Index lanes, Index count, Index index) {
  const Range vectors = part(ceil_div(size, lanes), count, index);
  return {std::min(size, vectors.begin * lanes), std::min(size, vectors.end * lanes)};
}

// Rows this far apart are whole vectors and do not share the sets of the cache.
template <class T>
Index padded(Index size, Index lanes) {
  const Index whole = std::max<Index>(1, ceil_div(size, lanes)) * lanes;
  return whole * Index(sizeof(T)) % 4096 == 0 ? whole + lanes : whole;
}

// Whether vectors along the samples do less work, of which nothing has to be packed in each step,
// than vectors along the features, for which the weights are.
bool along_own_batches(Index batch, Index features, Index lanes) {
  constexpr Index PACK_COST = 12;  // lanes of multiply-adds that packing a weight is worth
  const auto whole = [lanes](Index n) { return ceil_div(n, lanes) * lanes; };
  return whole(batch) * features <= whole(features) * (batch + PACK_COST);
}

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
double sum_of_squares(Matrix<T> w, Index rows, Index cols) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  std::vector<Sum<T>> row(cols);
  double total = 0;
  for (Index r = 0; r < rows; ++r) {
    kernel.gather(nullptr, 1, cols, w.from_row(r), {row.data(), cols, 1});
    for (const Sum<T> value : row) total += double(value) * double(value);
  }
  return total;
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
Training<T>::Training(const TrainingPlan<T>& given) : plan(given) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  optimizer = find(kernel.optimizers, kernel.optimizer_count, plan.optimizer, "optimizer");
  loss_kernel = find(kernel.losses, kernel.loss_count, plan.loss, "loss");
  const Index batch = plan.batch, hidden = plan.hidden_features, out = plan.out_features;
  const Index work = batch * hidden * (2 * plan.in_features + 3 * out);
  const Index lanes = kernel.lanes;
  const Index count = std::max<Index>(
      1, std::min({Index(plan.threads), work / WORK_PER_THREAD, ceil_div(hidden, lanes)}));
  const bool w1_in_rows = plan.in_features <= 1 || plan.parameters[W1].values.col_stride == 1;
  own_batches = w1_in_rows && kernel.packed_bytes(batch, plan.in_features) <= OWN_BATCH_BYTES &&
                kernel.packed_bytes(plan.in_features, batch) <= OWN_BATCH_BYTES;
  const Index features = ceil_div(hidden, count);
  samples_along =
      own_batches ? along_own_batches(batch, features, lanes) : features_first<T>(batch, features);
  // Vectors along a few outputs would be half empty.
  const bool few_outputs = out % lanes != 0 && out < 4 * lanes;
  outputs_first =
      loss_kernel->target == Target::classes || few_outputs || features_first<T>(batch, out);
  output_stride = outputs_first ? padded<S>(batch, lanes) : std::max<Index>(1, out);
  const Index outputs = outputs_first ? out * output_stride : batch * out;
  output_grad.at_least(outputs * Index(sizeof(T)));
  bias2.at_least(out * Index(sizeof(S)));
  slices = std::vector<Slice>(count);
  for (Index i = 0; i < count; ++i) {
    Slice& slice = slices[i];
    slice.features = vector_part(hidden, lanes, count, i);
    const Index features = slice.features.size();
    const Index size =
        samples_along ? features * padded<T>(batch, lanes) : batch * padded<T>(features, lanes);
    slice.hidden.at_least(size * Index(sizeof(T)));
    slice.hidden_grad.at_least(size * Index(sizeof(T)));
    slice.outputs.at_least(outputs * Index(sizeof(S)));
    slice.bias1_grad.at_least(features * Index(sizeof(double)));
    slice.bias2_grad.at_least(out * Index(sizeof(double)));
    output_parts.push_back(slice.outputs.template data<S>());
  }
  for (const int which : {W1, W2}) {
    const Parameter<T>& p = plan.parameters[which];
    if (plan.penalty == 0 || p.moves) continue;
    frozen_squares += sum_of_squares(p.values, which == W1 ? hidden : out,
                                     which == W1 ? plan.in_features : hidden);
  }
}

template <class T>
Matrix<T> Training<T>::hidden_view(const ScratchBuffer& buffer, const Slice& slice) const {
  const Index lanes = kernels().of<T>().lanes;
  T* data = buffer.template data<T>();
  if (samples_along) return {data, 1, padded<T>(plan.batch, lanes)};
  return {data, padded<T>(slice.features.size(), lanes), 1};
}

// ---- batches ----

template <class T>
void Training<T>::take_samples(const TrainingData<T>& data, const Steps& steps, Index step,
                               Batch& batch) {
  const Index rows = batch.rows = steps.size[step];
  batch.has_weight = bool(data.weight);
  batch.has_classes = bool(data.classes);
  batch.weights.assign(slices.size(), 0);
  if (!own_batches && steps.order) {
    const Index stride = padded<T>(plan.in_features, kernels().of<T>().lanes);
    batch.x_rows.at_least(rows * stride * Index(sizeof(T)));
    batch.x = {batch.x_rows.template data<T>(), stride, 1};
  }
  const Index outputs =
      outputs_first ? plan.out_features * output_stride : rows * plan.out_features;
  if (data.classes) {
    batch.classes.at_least(rows * Index(sizeof(Class<T>)));
  } else {
    batch.target.at_least(outputs * Index(sizeof(S)));
  }
  if (data.weight) batch.weight.at_least(rows * Index(sizeof(S)));
}

// Copies the rows of x that have these numbers.
template <class T>
void copy_rows(Matrix<const T> x, const std::int64_t* numbers, Index rows, Index cols,
               Matrix<T> to) {
  for (Index i = 0; i < rows; ++i) {
    const T* from = x.data + numbers[i] * x.row_stride;
    T* row = to.data + i * to.row_stride;
    if (x.col_stride == 1) {
      std::memcpy(row, from, std::size_t(cols) * sizeof(T));
    } else {
      for (Index c = 0; c < cols; ++c) row[c] = from[c * x.col_stride];
    }
  }
}

// The samples' features: all of them for a slice of its own, or one part for all slices.
template <class T>
void Training<T>::bring_in_x(const TrainingData<T>& data, const Steps& steps, Index step,
                             Batch& batch, Index index) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  const Index in = plan.in_features, first = steps.first[step];
  const std::int64_t* numbers = steps.order ? steps.order + first : nullptr;
  Slice& slice = slices[index];
  slice.x = numbers ? batch.x : data.x.from_row(first);
  if (!own_batches) {
    const Range rows = part(batch.rows, Index(slices.size()), index);
    if (!numbers) return;
    T* to = batch.x_rows.template data<T>() + rows.begin * batch.x.row_stride;
    copy_rows(data.x, numbers + rows.begin, rows.size(), in, {to, batch.x.row_stride, 1});
    return;
  }
  Operand<T> x = {numbers ? data.x : slice.x, numbers};
  // Packing takes numbered rows only where these are adjacent, and a product only rows in a row.
  if (numbers && (!samples_along || data.x.col_stride != 1)) {
    const Index stride = padded<T>(in, kernel.lanes);
    T* to = static_cast<T*>(slice.x_rows.at_least(batch.rows * stride * Index(sizeof(T))));
    copy_rows(data.x, numbers, batch.rows, in, {to, stride, 1});
    slice.x = {to, stride, 1};
    x = {slice.x};
  }
  void* packed = slice.x_packed.at_least(kernel.packed_bytes(batch.rows, in));
  kernel.pack_operand(batch.rows, in, x, packed);
  if (!samples_along) return;
  const Operand<T> transposed = {x.values.transposed(), nullptr, x.rows};
  packed = slice.x_transposed_packed.at_least(kernel.packed_bytes(in, batch.rows));
  kernel.pack_operand(in, batch.rows, transposed, packed);
}

// Copies one part of the batch's samples from wherever they are.
template <class T>
void Training<T>::bring_in(const TrainingData<T>& data, const Steps& steps, Index step,
                           Batch& batch, Index index) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  const Range rows = part(batch.rows, Index(slices.size()), index);
  const Index first = steps.first[step] + rows.begin;
  const std::int64_t* numbers = steps.order ? steps.order + first : nullptr;
  const auto number = [&](Index i) { return numbers ? numbers[i] : first + i; };
  bring_in_x(data, steps, step, batch, index);
  if (data.weight) {
    const Matrix<const T> weights = {data.weight.data + (numbers ? 0 : first) * data.weight.stride,
                                     data.weight.stride, 1};
    kernel.gather(numbers, rows.size(), 1, weights,
                  {batch.weight.template data<S>() + rows.begin, 1, 1});
  }
  if (data.target) {
    const Matrix<const T> targets = numbers ? data.target : data.target.from_row(first);
    S* to = batch.target.template data<S>();
    const Matrix<S> place = outputs_first
                                ? Matrix<S>{to + rows.begin, 1, output_stride}
                                : Matrix<S>{to + rows.begin * output_stride, output_stride, 1};
    kernel.gather(numbers, rows.size(), plan.out_features, targets, place);
  }
  if (!batch.has_weight && !batch.has_classes) return;
  double sum = 0;
  Class<T>* classes = batch.classes.template data<Class<T>>();
  for (Index i = 0; i < rows.size(); ++i) {
    double weight = data.weight ? double(batch.weight.template data<S>()[rows.begin + i]) : 1;
    if (data.classes) {
      const std::int64_t cls = data.classes.data[number(i) * data.classes.stride];
      const bool ignored = cls == plan.ignored_class;
      classes[rows.begin + i] = ignored ? -1 : Class<T>(cls);
      if (ignored) {
        weight = 0;
      } else if (plan.loss_options.class_weight) {
        weight *= double(plan.loss_options.class_weight[cls]);
      }
    }
    sum += weight;
  }
  batch.weights[index] = sum;
}

// ---- one step ----

// What is the same for all threads.
template <class T>
void Training<T>::prepare(const Steps& steps, Index step) {
  const Batch& batch = batches[current];
  weights = double(batch.rows);
  if (batch.has_weight || batch.has_classes) {
    weights = 0;
    for (const double sum : batch.weights) weights += sum;
  }
  coefficient = plan.penalty_is_shared ? plan.penalty / weights : plan.penalty;
  OptimizerOptions last;
  Index last_step = -1;
  const StepFactors* found = nullptr;
  for (int i = 0; i < PARAMETERS; ++i) {
    Parameter<T>& p = plan.parameters[i];
    if (!p.moves) continue;
    if (steps.rates) {
      const double* rates = steps.rates + (step * PARAMETERS + i) * 2;
      p.options.lr = rates[0];
      p.options.momentum = p.options.beta1 = rates[1];
    }
    // Most parameters share their options, and the powers in Adam's factors are not cheap.
    const bool same = found && last_step == p.steps + 1 && last == p.options;
    factors[i] = same ? *found : optimizer->factors(p.options, p.steps + 1);
    found = &factors[i], last = p.options, last_step = p.steps + 1;
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
void Training<T>::forward(Slice& slice, const Batch& batch) {
  const Range f = slice.features;
  const Matrix<T> h = hidden_view(slice.hidden, slice);
  const Matrix<T> w1 = plan.parameters[W1].values.from_row(f.begin);
  const Matrix<T> w2 = plan.parameters[W2].values.transposed().from_row(f.begin);
  const Matrix<T> b1 = plan.parameters[B1].values;
  Matmul<T> p;
  p.M = batch.rows, p.N = f.size(), p.K = plan.in_features;
  p.a = slice.x, p.b = Matrix<const T>(w1).transposed(), p.c = h;
  if (b1) p.col_bias = {b1.data + f.begin, 1};
  p.relu = true;
  if (samples_along && own_batches) {
    p = transposed(p);
    p.packed_b = slice.x_transposed_packed.template data<void>();
  }
  matmul(p, 1);
  Matmul<T> q;
  q.M = batch.rows, q.N = plan.out_features, q.K = f.size();
  q.a = h, q.b = w2;
  S* y = slice.outputs.template data<S>();
  q.suspend = true;
  q.partial = {y, output_stride, 1};
  if (outputs_first) q.partial = q.partial.transposed();
  q.c = {sizeof(T) == sizeof(S) ? reinterpret_cast<T*>(y) : nullptr, q.partial.row_stride,
         q.partial.col_stride};
  matmul(outputs_first ? transposed(q) : q, 1);
}

template <class T>
void Training<T>::find_loss(Index index, const Batch& batch) {
  Slice& slice = slices[index];
  LossTask<T> task;
  task.samples = vector_part(batch.rows, kernels().of<T>().lanes, Index(slices.size()), index);
  task.outputs = plan.out_features;
  task.outputs_first = outputs_first;
  task.stride = output_stride;
  task.parts = output_parts.data();
  task.part_count = Index(output_parts.size());
  task.bias = bias2.template data<S>();
  task.target = batch.target.template data<S>();
  task.cls = batch.classes.template data<Class<T>>();
  task.weight = batch.has_weight ? batch.weight.template data<S>() : nullptr;
  const LossScales scales = loss_kernel->scales(plan.loss_options.mean, weights, task.outputs);
  task.loss_scale = scales.loss;
  task.grad_scale = scales.grad;
  task.grad = output_grad.template data<T>();
  task.options = plan.loss_options;
  if (plan.parameters[B2].moves) {
    task.bias_grad = slice.bias2_grad.template data<double>();
    std::fill_n(task.bias_grad, task.outputs, 0.0);
  }
  slice.loss = loss_kernel->run(task);
}

template <class T>
Update<T> Training<T>::update_of(ParameterIndex which, double* squares) const {
  const Parameter<T>& p = plan.parameters[which];
  Update<T> update;
  update.take = &take_sums<T>;
  update.apply = optimizer->update;
  update.parameter = p.values.data;
  std::copy(p.states, p.states + MAX_STATES, update.states);
  update.factors = factors[which];
  if ((which == W1 || which == W2) && plan.penalty != 0) {
    update.penalty = coefficient;
    update.squares = squares;
  }
  return update;
}

template <class T>
void Training<T>::move_bias(ParameterIndex which, Range features, const double* grad) {
  constexpr Index COUNT = 256;
  S sums[COUNT];
  const Update<T> update = update_of(which, nullptr);
  for (Index begin = features.begin; begin < features.end; begin += COUNT) {
    const Index count = std::min(COUNT, features.end - begin);
    for (Index i = 0; i < count; ++i) sums[i] = S(grad[begin - features.begin + i]);
    update.apply(update, begin, count, 1, count, sums, count);
  }
}

template <class T>
void Training<T>::backward(Slice& slice, const Batch& batch) {
  const Range f = slice.features;
  const Parameter<T>* parameters = plan.parameters;
  const Matrix<const T> h = hidden_view(slice.hidden, slice);
  const Matrix<T> grad_h = hidden_view(slice.hidden_grad, slice);
  const Matrix<T> w2 = parameters[W2].values.transposed().from_row(f.begin).transposed();
  T* dy = output_grad.template data<T>();
  const Matrix<const T> grad_y =
      outputs_first ? Matrix<const T>{dy, 1, output_stride} : Matrix<const T>{dy, output_stride, 1};
  slice.squares = 0;
  if (parameters[W1].moves || parameters[B1].moves) {  // before w2 moves
    double* const bias1_grad = slice.bias1_grad.template data<double>();
    std::fill_n(bias1_grad, f.size(), 0.0);
    Matmul<T> p;
    p.M = batch.rows, p.N = f.size(), p.K = plan.out_features;
    p.a = grad_y, p.b = w2, p.c = grad_h;
    p.mask = h;
    if (parameters[B1].moves) p.col_sum = bias1_grad;
    matmul(p, 1);
  }
  if (parameters[W2].moves) {
    const Update<T> update = update_of(W2, &slice.squares);
    Matmul<T> p;
    p.M = plan.out_features, p.N = f.size(), p.K = batch.rows;
    p.a = grad_y.transposed(), p.b = h, p.c = w2;
    p.taker = &update;
    matmul(p, 1);
  }
  if (parameters[B1].moves) move_bias(B1, f, slice.bias1_grad.template data<double>());
  if (parameters[W1].moves) {
    const Update<T> update = update_of(W1, &slice.squares);
    Matmul<T> p;
    p.M = f.size(), p.N = plan.in_features, p.K = batch.rows;
    p.a = Matrix<const T>(grad_h).transposed(), p.b = slice.x;
    if (own_batches) p.packed_b = slice.x_packed.template data<void>();
    p.c = parameters[W1].values.from_row(f.begin);
    p.taker = &update;
    matmul(p, 1);
  }
}

// False where the loss is no finite number; nothing has moved then.
template <class T>
bool Training<T>::step(const TrainingData<T>& data, const Steps& steps, Index index, double* loss) {
  const Batch& batch = batches[current];
  const Index count = Index(slices.size());
  prepare(steps, index);
  on_threads(count, [&](Index i) { forward(slices[i], batch); });
  on_threads(count, [&](Index i) { find_loss(i, batch); });
  *loss = 0;
  for (const Slice& slice : slices) *loss += slice.loss;
  if (steps.stop_at_nonfinite && !std::isfinite(*loss)) return false;
  if (plan.parameters[B2].moves) {
    for (Index i = 1; i < count; ++i) {
      for (Index j = 0; j < plan.out_features; ++j) {
        slices[0].bias2_grad.template data<double>()[j] +=
            slices[i].bias2_grad.template data<double>()[j];
      }
    }
  }
  // The next batch comes in at the end of this one's last phase, unless it is this one again.
  const bool last = index + 1 == steps.count;
  const bool changes = !last && (steps.order || steps.first[index + 1] != steps.first[index] ||
                                 steps.size[index + 1] != steps.size[index]);
  Batch& next = batches[1 - current];
  if (changes) take_samples(data, steps, index + 1, next);
  on_threads(count, [&](Index i) {
    backward(slices[i], batch);
    if (i == 0 && plan.parameters[B2].moves) {
      move_bias(B2, {0, plan.out_features}, slices[0].bias2_grad.template data<double>());
    }
    if (changes) bring_in(data, steps, index + 1, next, i);
  });
  if (plan.penalty != 0) {
    double squares = frozen_squares;
    for (const Slice& slice : slices) squares += slice.squares;
    *loss += 0.5 * coefficient * squares;
  }
  for (Parameter<T>& p : plan.parameters) p.steps += p.moves;
  if (changes) current = 1 - current;
  return true;
}

template <class T>
Outcome Training<T>::run(const TrainingData<T>& data, const Steps& steps, double* losses) {
  Outcome outcome;
  if (steps.count == 0) return outcome;
  const Index end = now() + Index(std::min(steps.seconds, 1e9) * 1e9);
  const PoolRun together(int(slices.size()));
  take_samples(data, steps, 0, batches[current]);
  on_threads(Index(slices.size()), [&](Index i) { bring_in(data, steps, 0, batches[current], i); });
  while (outcome.done < steps.count && (outcome.done == 0 || now() < end)) {
    if (!step(data, steps, outcome.done, losses + outcome.done)) {
      outcome.nonfinite = true;
      break;
    }
    ++outcome.done;
  }
  return outcome;
}

template class Training<float>;
template class Training<double>;
template class Training<bfloat16>;
template class Training<float16>;

}  // namespace twolayer
