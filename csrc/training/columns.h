// The columns of a weight that one thread trains.
#pragma once

#include <cstring>

#include "../scratch.h"
#include "batches.h"
#include "plan.h"

namespace twolayer {

// Where a thread's columns are short pieces of the weight's rows, the pieces of two threads meet in
// a line of each row, which the two processors then take from each other in each step. Apart, in
// copies whose rows are whole lines, they do not.
template <class T>
class Columns {
 public:
  void begin(const Parameter<T>& weight, Index its_rows, Range columns) {
    there = weight;
    rows = its_rows, count = columns.size();
    const Index offset = columns.begin * weight.values.col_stride;
    there.values.data += offset;
    for (T*& state : there.states) state += state ? offset : 0;
    here = there;
  }

  // The columns and their states, to be read and moved.
  const Parameter<T>& current() const { return here; }

  // Only where a row's columns are adjacent. Throws std::bad_alloc; then they are where they were.
  void set_apart() {
    Parameter<T> apart = there;
    const Index stride = row_stride<T>(count);
    int copy = 0;
    const auto copied = [&](T* from) {
      const Index bytes = rows * stride * Index(sizeof(T));
      T* const to = static_cast<T*>(copies[copy++].at_least(bytes));
      copy_rows(from, there.values.row_stride, to, stride);
      return to;
    };
    apart.values = {copied(there.values.data), stride, 1};
    for (T*& state : apart.states) state = state ? copied(state) : nullptr;
    here = apart;
  }

  void put_back() {
    if (here.values.data == there.values.data) return;
    const Index from = here.values.row_stride, to = there.values.row_stride;
    copy_rows(here.values.data, from, there.values.data, to);
    for (int i = 0; i < MAX_STATES; ++i) {
      if (there.states[i]) copy_rows(here.states[i], from, there.states[i], to);
    }
    here = there;
  }

 private:
  void copy_rows(const T* from, Index from_stride, T* to, Index to_stride) const {
    for (Index row = 0; row < rows; ++row) {
      std::memcpy(to + row * to_stride, from + row * from_stride, std::size_t(count) * sizeof(T));
    }
  }

  Parameter<T> there, here;
  Index rows = 0, count = 0;
  ScratchBuffer copies[1 + MAX_STATES];
};

}  // namespace twolayer
