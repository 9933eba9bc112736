// The samples of each step, brought from wherever they are into the order in which it reads them.
#include "batches.h"

#include <algorithm>
#include <cstring>

#include "../kernels.h"
#include "../parts.h"

namespace twolayer {

namespace {

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

}  // namespace

template <class T>
Batches<T>::Batches(const TrainingPlan<T>& plan, const Layout& layout)
    : plan(plan), layout(layout), owns(layout.threads) {
  const Index each = layout.own_losses ? layout.threads : 1;
  for (Batch<T>& batch : batches) batch.targets = std::vector<Targets>(each);
}

template <class T>
Range Batches<T>::part_of(Index rows, Index thread) const {
  // In whole vectors, so that no line is shared where outputs come first.
  return vector_part(rows, kernels().of<T>().lanes, layout.threads, thread);
}

template <class T>
Range Batches<T>::samples_of_loss(Index rows, Index thread) const {
  return layout.own_losses ? Range{0, rows} : part_of(rows, thread);
}

template <class T>
const Targets& Batches<T>::targets_of(Index thread) const {
  return current().targets[layout.own_losses ? thread : 0];
}

template <class T>
OwnSamples<T> Batches<T>::samples_of(Index thread, const Batch<T>& batch) const {
  const Own& own = owns[thread];
  if (!layout.own_batches) return {batch.x};
  const void* transposed = own.x_transposed_packed.template data<void>();
  return {own.x, own.x_packed.template data<void>(), layout.samples_along ? transposed : nullptr};
}

template <class T>
double Batches<T>::weight() const {
  if (!data.weight && !data.classes) return double(current().rows);
  if (layout.own_losses) return owns[0].weight[in_use];
  double sum = 0;
  for (const Own& own : owns) sum += own.weight[in_use];
  return sum;
}

template <class T>
Index Batches<T>::bad_sample() const {
  Index bad = -1;
  for (const Own& own : owns) bad = std::max(bad, own.bad_sample[in_use]);
  return bad;
}

template <class T>
void Batches<T>::begin(const TrainingData<T>& its_data, const Steps& its_steps) {
  data = its_data;
  steps = its_steps;
}

template <class T>
void Batches<T>::take(Index step) {
  first = steps.first[step];
  numbers = steps.order ? steps.order + first : nullptr;
  Batch<T>& batch = batches[1 - in_use];
  const Index rows = batch.rows = steps.size[step];
  batch.x = numbers ? data.x : data.x.from_row(first);
  if (!layout.own_batches && numbers) {
    const Index stride = row_stride<T>(plan.in_features);
    batch.x = {static_cast<T*>(batch.x_rows.at_least(rows * stride * Index(sizeof(T)))), stride, 1};
  }
  const Index outputs =
      layout.outputs_first ? plan.out_features * layout.output_stride : rows * plan.out_features;
  for (Targets& targets : batch.targets) {
    if (data.target) targets.values.at_least(outputs * Index(sizeof(S)));
    if (data.classes) targets.classes.at_least(rows * Index(sizeof(Class<T>)));
    if (data.weight) targets.weights.at_least(rows * Index(sizeof(S)));
  }
}

template <class T>
void Batches<T>::bring_in(Index thread) {
  Batch<T>& batch = batches[1 - in_use];
  if (layout.own_batches) {
    pack_x(batch, owns[thread]);
  } else if (numbers) {
    const Range rows = part_of(batch.rows, thread);
    T* const to = batch.x_rows.template data<T>() + rows.begin * batch.x.row_stride;
    copy_rows(data.x, numbers + rows.begin, rows.size(), plan.in_features,
              {to, batch.x.row_stride, 1});
  }
  bring_in_targets(batch, thread);
}

template <class T>
void Batches<T>::bring_in_targets(Batch<T>& batch, Index thread) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  Targets& targets = batch.targets[layout.own_losses ? thread : 0];
  const Range rows = samples_of_loss(batch.rows, thread);
  const std::int64_t* const own_numbers = numbers ? numbers + rows.begin : nullptr;
  const Index own_first = numbers ? 0 : first + rows.begin;
  if (data.weight) {
    const Vector<const T> w = {data.weight.data + own_first * data.weight.stride,
                               data.weight.stride};
    S* const to = targets.weights.template data<S>() + rows.begin;
    kernel.gather(own_numbers, rows.size(), 1, {w.data, w.stride, 1}, {to, 1, 1});
  }
  if (data.target) {
    S* const to = targets.values.template data<S>();
    const Matrix<S> place = layout.outputs_first ? Matrix<S>{to, 1, layout.output_stride}
                                                 : Matrix<S>{to, layout.output_stride, 1};
    kernel.gather(own_numbers, rows.size(), plan.out_features, data.target.from_row(own_first),
                  place.from_row(rows.begin));
  }
  if (data.weight || data.classes) weigh(targets, rows, owns[thread]);
}

// All of the samples' features, for one thread.
template <class T>
void Batches<T>::pack_x(const Batch<T>& batch, Own& own) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  const Index in = plan.in_features;
  own.x = batch.x;
  Operand<T> x = {numbers ? data.x : own.x, numbers};
  // Packing takes numbered rows only where these are adjacent, and a product only rows in a row.
  if (numbers && (!layout.samples_along || data.x.col_stride != 1)) {
    const Index stride = row_stride<T>(in);
    T* const to = static_cast<T*>(own.x_rows.at_least(batch.rows * stride * Index(sizeof(T))));
    copy_rows(data.x, numbers, batch.rows, in, {to, stride, 1});
    own.x = {to, stride, 1};
    x = {own.x};
  }
  kernel.pack_operand(batch.rows, in, x,
                      own.x_packed.at_least(kernel.packed_bytes(batch.rows, in)));
  if (!layout.samples_along) return;
  const Operand<T> transposed = {x.values.transposed(), nullptr, x.rows};
  kernel.pack_operand(in, batch.rows, transposed,
                      own.x_transposed_packed.at_least(kernel.packed_bytes(in, batch.rows)));
}

// Writes the samples' classes, below 0 where they are ignored, and sums up their weights. A class
// is read once: who else may write to it, no other one can be meant than the one looked at.
template <class T>
void Batches<T>::weigh(Targets& targets, Range rows, Own& own) {
  const S* const class_weight = plan.loss_options.class_weight;
  double sum = 0;
  Index bad_sample = -1;
  for (Index i = rows.begin; i < rows.end; ++i) {
    double weight = data.weight ? double(targets.weights.template data<S>()[i]) : 1;
    if (data.classes) {
      const Index sample = numbers ? numbers[i] : first + i;
      const std::int64_t cls = data.classes.data[sample * data.classes.stride];
      const bool known = 0 <= cls && cls < plan.out_features;
      if (!known && cls != plan.ignored_class) bad_sample = sample;
      const bool ignored = cls == plan.ignored_class || !known;
      targets.classes.template data<Class<T>>()[i] = ignored ? -1 : Class<T>(cls);
      if (ignored) {
        weight = 0;
      } else if (class_weight) {
        weight *= double(class_weight[cls]);
      }
    }
    sum += weight;
  }
  own.weight[1 - in_use] = sum;
  own.bad_sample[1 - in_use] = bad_sample;
}

template class Batches<float>;
template class Batches<double>;
template class Batches<bfloat16>;
template class Batches<float16>;

}  // namespace twolayer
