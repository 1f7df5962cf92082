// Tiles over oneDNN's sgemm. On the shapes of small models one call reaches about nine tenths of a
// core's peak in every transposition, so there are no cached primitives and no packed weights.
#include "runtime/cpu/gemm.h"

#include <oneapi/dnnl/dnnl.h>

#include "runtime/error.h"

namespace caravan::cpu {
namespace {

// Larger tiles pack less often (transposed weights once per tile row), smaller ones balance better.
constexpr int64_t kTileRows = 512;
constexpr int64_t kTileColumns = 512;
constexpr int64_t kSmallestTile = 192;  // below it, packing costs more than balance gains
constexpr int64_t kMinTiles = 4;        // wanted, so that threads find work in small products

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct TileGrid {
  int64_t rows;     // number of tiles down
  int64_t columns;  // and across
};

TileGrid tile_grid(int64_t m, int64_t n) {
  TileGrid grid{divide_up(m, kTileRows), divide_up(n, kTileColumns)};
  while (grid.rows * grid.columns < kMinTiles) {
    const int64_t height = m / grid.rows;
    const int64_t width = n / grid.columns;
    if (std::max(height, width) < 2 * kSmallestTile) break;
    (height > width ? grid.rows : grid.columns) *= 2;
  }
  return grid;
}

struct Range {
  int64_t begin;
  int64_t end;
};

// Part i of `parts` nearly equal parts of [0, size), cut at multiples of 16: the kernel's tile.
Range split(int64_t size, int64_t parts, int64_t i) {
  const int64_t units = divide_up(size, 16);
  return {std::min(size, units * i / parts * 16), std::min(size, units * (i + 1) / parts * 16)};
}

}  // namespace

void gemm(const Gemm& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {  // an empty sum, which oneDNN refuses
    for (int64_t i = 0; i < p.m && !p.accumulate; ++i) std::fill_n(p.c + i * p.ldc, p.n, 0.0f);
    return;
  }
  const auto status =
      dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, p.alpha, p.a,
                 p.lda, p.b, p.ldb, p.accumulate ? 1.0f : 0.0f, p.c, p.ldc);
  check(status == dnnl_success,
        "[matmul] oneDNN's sgemm failed with status %d on (%d,%d) x (%d,%d)",
        static_cast<int>(status), p.m, p.k, p.k, p.n);
}

void gemm(const Gemm& p, const CpuThreads& threads) {
  if (p.m == 0 || p.n == 0) return;
  const TileGrid grid = tile_grid(p.m, p.n);
  threads.for_each(grid.rows * grid.columns, [&](int64_t task, int) {
    const Range rows = split(p.m, grid.rows, task / grid.columns);
    const Range columns = split(p.n, grid.columns, task % grid.columns);
    Gemm tile = p;
    tile.m = rows.end - rows.begin;
    tile.n = columns.end - columns.begin;
    tile.a += rows.begin * (p.transpose_a ? 1 : p.lda);
    tile.b += columns.begin * (p.transpose_b ? p.ldb : 1);
    tile.c += rows.begin * p.ldc + columns.begin;
    gemm(tile);
  });
}

}  // namespace caravan::cpu
