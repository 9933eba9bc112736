// A blocked product shared by threads: which side of C is split, and the sums that they bring back.
#include "matmul.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "kernels.h"
#include "parts.h"
#include "threads.h"

namespace twolayer {

namespace {

// Multiply-adds that one thread finishes in about the time that waking a second one takes.
constexpr Index WORK_PER_THREAD = 100000;
// Sums of fewer terms are little but stores: one thread does up to so many elements, fewer of them
// where nothing reads them next.
constexpr Index FEW_TERMS = 4, CACHED_ELEMENTS = 1 << 20, LAST_ELEMENTS = 1 << 17;

}  // namespace

Index useful_threads(Index M, Index N, Index K, Index threads, bool is_last) {
  const Index most = is_last ? LAST_ELEMENTS : CACHED_ELEMENTS;
  if (K < FEW_TERMS) return M * N < most ? 1 : std::min<Index>(threads, 1 + M * N / most);
  return std::max<Index>(1, std::min(threads, M * N * K / WORK_PER_THREAD));
}

namespace {

struct Grid {
  Index rows = 1, cols = 1;
};

// Reading an element that another thread has written costs about as much as this many lanes of
// multiply-adds: 18 where the two processors share a cache, up to 180 where they do not. What does
// not fit into the caches anyway comes from elsewhere.
constexpr Index OTHERS_COST = 120, OTHERS_BYTES = 2 << 20;

// The grid of threads over C with the least work in its largest block, where each thread packs
// the columns of B that it uses and copies its rows of A. Columns are dealt in whole vectors.
template <class T>
Grid choose_grid(const Matmul<T>& p, const KernelsOf<T>& kernel, Index count) {
  const Index lanes = kernel.lanes;
  const Index fitting = OTHERS_BYTES / Index(sizeof(T));
  const bool fresh_rows = p.fresh == Side::rows && p.M * p.K <= fitting;
  const bool fresh_cols = p.fresh == Side::columns && p.N * p.K <= fitting;
  Grid best;
  Index best_cost = -1;
  for (Index rows = 1; rows <= count; ++rows) {
    const Index cols = count / rows;
    const Index block_rows = ceil_div(p.M, rows);
    const Index block_cols = ceil_div(ceil_div(p.N, lanes), cols) * lanes;
    const Index cost = block_cols * (block_rows + kernel.pack_cost) +
                       block_rows * kernel.copy_cost + (fresh_rows ? block_rows * OTHERS_COST : 0) +
                       (fresh_cols ? block_cols * OTHERS_COST : 0);
    if (best_cost < 0 || cost < best_cost) {
      best_cost = cost;
      best = {rows, cols};
    }
  }
  return best;
}

// A dimension of size 1 has no stride to speak of.
template <class T>
bool adjacent_along_rows(const Matmul<T>& p) {
  return p.N <= 1 || (p.c.col_stride == 1 && (!p.mask || p.mask.col_stride == 1));
}

}  // namespace

template <class T>
void matmul(const Matmul<T>& problem, int threads) {
  const bool rows_adjacent = adjacent_along_rows(problem);
  // One column would fill a lane of each vector. From the other side it is dot products, or a row
  // beside a B that is read where it lies.
  const bool dots = problem.a.col_stride == 1 && problem.b.row_stride == 1;
  if (problem.N == 1 && problem.M > 1 && !problem.packed_b && (dots || problem.a.row_stride == 1) &&
      adjacent_along_rows(transposed(problem))) {
    return matmul(transposed(problem), threads);
  }
  if (!rows_adjacent && !adjacent_along_rows(transposed(problem))) {
    throw std::logic_error("C and mask of a product must be adjacent along the same side");
  }
  if (!rows_adjacent && problem.packed_b) {
    throw std::logic_error("C must have a unit column stride where B is packed");
  }
  if (!rows_adjacent) return matmul(transposed(problem), threads);
  const Matmul<T>& p = problem;
  if (p.M == 0 || p.N == 0) return;
  const KernelsOf<T>& kernel = kernels().of<T>();
  // The blocks of a packed operand are cut for all of its columns.
  const Index useful = useful_threads(p.M, p.N, p.K, threads, p.is_last);
  const Grid grid = p.packed_b ? Grid{std::min(p.M, useful), 1} : choose_grid(p, kernel, useful);
  const Index count = grid.rows * grid.cols;
  if (count == 1) {
    return kernel.matmul_block(p, {0, p.M}, {0, p.N}, p.row_sum, p.col_sum);
  }
  // Row sums of a row that is split among threads, and column sums likewise, come back in one
  // copy per part and are added in the order of the parts.
  std::vector<double> row_sums(p.row_sum ? p.M * grid.cols : 0);
  std::vector<double> col_sums(p.col_sum ? p.N * grid.rows : 0);
  on_threads(count, [&](Index index) {
    const Index row = index / grid.cols, col = index % grid.cols;
    const Range rows = part(p.M, grid.rows, row);
    const Range cols = vector_part(p.N, kernel.lanes, grid.cols, col);
    if (rows.size() <= 0 || cols.size() <= 0) return;
    kernel.matmul_block(p, rows, cols, p.row_sum ? row_sums.data() + col * p.M : nullptr,
                        p.col_sum ? col_sums.data() + row * p.N : nullptr);
  });
  if (p.row_sum) {
    for (Index i = 0; i < Index(row_sums.size()); ++i) p.row_sum[i % p.M] += row_sums[i];
  }
  if (p.col_sum) {
    for (Index i = 0; i < Index(col_sums.size()); ++i) p.col_sum[i % p.N] += col_sums[i];
  }
}

template void matmul(const Matmul<float>&, int);
template void matmul(const Matmul<double>&, int);
template void matmul(const Matmul<bfloat16>&, int);
template void matmul(const Matmul<float16>&, int);

}  // namespace twolayer
