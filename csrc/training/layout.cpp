// The choices, by what was measured.
#include "layout.h"

#include <algorithm>

#include "../kernels.h"
#include "../parts.h"
#include "../two_layer.h"

namespace twolayer {

namespace {

// A batch of up to this many bytes, packed in either direction, is packed once by each thread.
constexpr Index OWN_BATCH_BYTES = 1 << 20;
// Multiply-adds of a step below which a second thread costs more than it may bring: two meetings
// of the threads, of 2 to 10 us in all, by where the processors are. It cannot be found out during
// a run, whose bits depend on the number of slices.
constexpr Index WORK_PER_THREAD = 300000;

// Up to so many outputs, of which others would find the losses too, the threads each find all of
// them, to meet once a step and not twice. An output of a softmax counts as several.
constexpr Index REPEATED_LOSSES = 4096, COST_OF_SOFTMAX = 3;

// A thread's columns of w2 up to this many bytes are trained in copies.
constexpr Index W2_APART_BYTES = 1 << 16;

// Whether vectors along the samples do less work, of which nothing has to be packed in each step,
// than vectors along the features, for which the weights are.
bool along_own_batches(Index batch, Index features, Index lanes) {
  constexpr Index PACK_COST = 2;  // rows of all of a step's products that packing a weight is worth
  const auto whole = [lanes](Index n) { return ceil_div(n, lanes) * lanes; };
  return whole(batch) * features <= whole(features) * (batch + PACK_COST);
}

}  // namespace

template <class T>
Layout layout_of(const TrainingPlan<T>& plan, const LossKernel<T>& loss) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  const Index lanes = kernel.lanes, batch = plan.batch;
  const Index in = plan.in_features, hidden = plan.hidden_features, out = plan.out_features;
  Layout layout;
  const Index useful = batch * hidden * (2 * in + 3 * out) / WORK_PER_THREAD;
  layout.threads =
      std::max<Index>(1, std::min({Index(plan.threads), useful, ceil_div(hidden, lanes)}));
  const bool w1_in_rows = in <= 1 || plan.parameters[W1].values.col_stride == 1;
  layout.own_batches = w1_in_rows && kernel.packed_bytes(batch, in) <= OWN_BATCH_BYTES &&
                       kernel.packed_bytes(in, batch) <= OWN_BATCH_BYTES;
  const Index features = ceil_div(hidden, layout.threads);
  layout.samples_along = layout.own_batches ? along_own_batches(batch, features, lanes)
                                            : features_first<T>({batch, in, features, out}, true);
  const bool classes = loss.target == Target::classes;
  const Index repeated = (layout.threads - 1) * batch * out * (classes ? COST_OF_SOFTMAX : 1);
  layout.own_losses = layout.threads > 1 && repeated <= REPEATED_LOSSES;
  // Vectors along a few outputs would be half empty.
  const bool few_outputs = out % lanes != 0 && out < 4 * lanes;
  layout.outputs_first = classes || few_outputs ||
                         product_cost<T>(out, batch, hidden, Operands::others) * 11 <
                             product_cost<T>(batch, out, hidden, Operands::others) * 10;
  layout.output_stride = layout.outputs_first ? row_stride<Sum<T>>(batch) : std::max<Index>(1, out);
  const Parameter<T>& w2 = plan.parameters[W2];
  layout.w2_apart = layout.threads > 1 && w2.moves && w2.values.col_stride == 1 &&
                    out * features * Index(sizeof(T)) <= W2_APART_BYTES;
  return layout;
}

template <class T>
Index row_stride(Index size) {
  const Index lanes = kernels().of<T>().lanes;
  const Index whole = std::max<Index>(1, ceil_div(size, lanes)) * lanes;
  return whole * Index(sizeof(T)) % 4096 == 0 ? whole + lanes : whole;
}

template Layout layout_of(const TrainingPlan<float>&, const LossKernel<float>&);
template Layout layout_of(const TrainingPlan<double>&, const LossKernel<double>&);
template Layout layout_of(const TrainingPlan<bfloat16>&, const LossKernel<bfloat16>&);
template Layout layout_of(const TrainingPlan<float16>&, const LossKernel<float16>&);

template Index row_stride<float>(Index);
template Index row_stride<double>(Index);
template Index row_stride<bfloat16>(Index);
template Index row_stride<float16>(Index);

}  // namespace twolayer
