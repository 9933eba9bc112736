#include "steps.h"

#include "parts.h"
#include "scratch.h"

namespace twolayer {

namespace {

constexpr Index HIDDEN_BYTES = 8 << 20;
constexpr Index MIN_ROWS = 512;
constexpr Index SUMS_BYTES = 1 << 20;

ScratchBuffer& hidden_buffer(Hidden which) {
  static thread_local ScratchBuffer buffers[2];
  return buffers[int(which)];
}

ScratchBuffer& sums_buffer(SumsOf which) {
  static thread_local ScratchBuffer buffers[4];
  return buffers[int(which)];
}

}  // namespace

Index piece_rows(Index batch, Index features, Index element_size) {
  const Index fitting = HIDDEN_BYTES / std::max<Index>(1, features * element_size);
  const Index pieces = std::max<Index>(1, ceil_div(batch, std::max(MIN_ROWS, fitting)));
  return std::max<Index>(1, ceil_div(batch, pieces));
}

void* hidden_memory(Hidden which, Index bytes) { return hidden_buffer(which).at_least(bytes); }

void* sums_memory(SumsOf which, Index bytes) { return sums_buffer(which).at_least(bytes); }

double* zeroed_sums(SumsOf which, Index count) {
  auto* sums = static_cast<double*>(sums_memory(which, count * Index(sizeof(double))));
  std::fill_n(sums, count, 0.0);
  return sums;
}

TrimHidden::~TrimHidden() {
  for (Hidden which : {Hidden::activation, Hidden::gradient}) {
    hidden_buffer(which).keep_at_most(2 * HIDDEN_BYTES);
  }
  sums_buffer(SumsOf::parts).keep_at_most(SUMS_BYTES);
}

TrimScratch::~TrimScratch() {
  for (SumsOf which : {SumsOf::hidden, SumsOf::other}) {
    sums_buffer(which).keep_at_most(SUMS_BYTES);
  }
  sums_buffer(SumsOf::shares).keep_at_most(MOST_SHARED_BYTES);
}

}  // namespace twolayer
