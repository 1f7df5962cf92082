#include "runtime/cpu/gemm.h"

#include <algorithm>
#include <cstring>

namespace caravan::cpu {
namespace {

constexpr int64_t kGroup = 4;           // row panels of a task, at most
constexpr int64_t kTasksPerThread = 6;  // at least, if there are rows enough
constexpr int64_t kBlockColumns =
    1024;  // x kMaxGemmDepth floats of b: 2 MiB, read row panel by row panel

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t unit) { return divide_up(a, unit) * unit; }

// [0, size) in nearly equal blocks of at most `most`, cut at multiples of `unit`.
struct Blocks {
  Blocks(int64_t total, int64_t most, int64_t unit)
      : size(total), block(round_up(divide_up(total, divide_up(total, most)), unit)) {}
  int64_t count() const { return divide_up(size, block); }
  int64_t begin(int64_t i) const { return i * block; }
  int64_t end(int64_t i) const { return std::min(size, (i + 1) * block); }

  int64_t size;
  int64_t block;
};

const float* at(const Matrix& matrix, int64_t row, int64_t column) {
  return matrix.data + (matrix.transposed ? column * matrix.ld + row : row * matrix.ld + column);
}

// Panel `i` of b (k,n): its columns from i * width on.
void pack_panel(const GemmKernel& kernel, const Matrix& b, int64_t n, int64_t k, int64_t i,
                float* packed) {
  const int64_t width = kernel.columns;
  const int64_t columns = std::min(width, n - i * width);
  const float* source = at(b, 0, i * width);
  float* panel = packed + i * k * width;
  const auto pack = b.transposed ? kernel.pack_transposed : kernel.pack_columns;
  pack(source, b.ld, k, columns, panel);
}

// Rows that lie a multiple of half a page apart compete for few lines of a level 1 cache.
bool rows_collide(int64_t ld) { return ld % 512 == 0; }

// Gives the tile rows [first, first + its rows) of a: where they are, or a copy in `panel`.
void set_rows(const Gemm& p, int64_t first, float* panel, GemmTile& tile) {
  const float* source = at(p.a, first, 0);
  tile.transposed_a = p.a.transposed;
  tile.a = panel;
  tile.row_stride = kPackedRowStride;
  if (p.a.transposed) return p.kernel->pack_rows(source, p.a.ld, p.k, tile.rows, panel);
  if (!rows_collide(p.a.ld)) {
    tile.a = source;
    tile.row_stride = p.a.ld;
    return;
  }
  for (int64_t i = 0; i < tile.rows; ++i) {
    std::copy_n(source + i * p.a.ld, p.k, panel + i * kPackedRowStride);
  }
}

void multiply_rows(const Gemm& p, const PackedMatrix& b, int64_t first, float* panel) {
  const GemmKernel& kernel = *p.kernel;
  const int64_t rows = std::min(kernel.rows, p.m - first);
  GemmTile tile{.rows = rows,
                .depth = p.k,
                .b = b.panels,
                .addend = p.addend == nullptr ? nullptr : p.addend + first * p.ld_addend,
                .ld_addend = p.ld_addend,
                .c = p.c + first * p.ldc,
                .ldc = p.ldc};
  set_rows(p, first, panel, tile);
  const int64_t num_tiles = divide_up(p.n, kernel.columns);
  for (int64_t i = 0; i < num_tiles; ++i) {
    tile.columns = std::min(kernel.columns, p.n - i * kernel.columns);
    kernel.multiply(tile);
    tile.b += b.depth * kernel.columns;
    tile.c += kernel.columns;
    if (tile.addend != nullptr) tile.addend += kernel.columns;
  }
}

// The product with depths [begin, end) only, added to what shallower depths gave.
Gemm depths_of(const Gemm& p, int64_t begin, int64_t end) {
  Gemm part = p;
  part.k = end - begin;
  part.a.data = at(p.a, 0, begin);
  if (part.b.data != nullptr) part.b.data = at(p.b, begin, 0);
  if (begin > 0) {
    part.addend = p.c;
    part.ld_addend = p.ldc;
  }
  return part;
}

Gemm columns_of(const Gemm& p, int64_t begin, int64_t end) {
  Gemm part = p;
  part.n = end - begin;
  part.b.data = at(p.b, 0, begin);
  part.c += begin;
  if (part.addend != nullptr) part.addend += begin;
  return part;
}

// The product as a sequence of blocks of b, strip of columns by strip, depths of a strip in order.
class BlockedGemm {
 public:
  BlockedGemm(const Gemm& product, float* scratch, const CpuThreads& threads)
      : product_(product),
        columns_(product.n, kBlockColumns, kMaxGemmColumns),
        depths_(product.k, kMaxGemmDepth, 1),
        scratch_(scratch),
        threads_(threads) {}

  // While a block is multiplied, the next one is packed: threads that have no rows left do that.
  void run() const {
    Block block = block_at(0);
    threads_.for_each(num_panels(block), [&](int64_t panel, int) { pack(block, panel); });
    const int64_t num_groups = divide_up(product_.m, group_rows());
    for (int64_t i = 0; i < num_blocks(); ++i) {
      const bool is_last = i + 1 == num_blocks();
      const Block next = is_last ? block : block_at(i + 1);
      const int64_t num_tasks = num_groups + (is_last ? 0 : num_panels(next));
      threads_.for_each(num_tasks, [&](int64_t task, int thread) {
        if (task >= num_groups) return pack(next, task - num_groups);
        multiply(block, task, thread);
      });
      block = next;
    }
  }

 private:
  struct Block {
    Gemm product;
    float* packed;
  };
  int64_t num_blocks() const { return columns_.count() * depths_.count(); }
  int64_t num_panels(const Block& block) const {
    return divide_up(block.product.n, product_.kernel->columns);
  }

  Block block_at(int64_t i) const {
    const int64_t column = i / depths_.count(), depth = i % depths_.count();
    const Gemm strip = columns_of(product_, columns_.begin(column), columns_.end(column));
    float* const first = scratch_ + threads_.count() * kPanelFloats;
    return {depths_of(strip, depths_.begin(depth), depths_.end(depth)),
            first + i % 2 * packed_floats(columns_.block, depths_.block)};
  }

  void pack(const Block& block, int64_t panel) const {
    const Gemm& p = block.product;
    pack_panel(*p.kernel, p.b, p.n, p.k, panel, block.packed);
  }

  // Rows of a task: a few panels, as neighbours share cache lines of a transposed a, but enough
  // tasks for every thread.
  int64_t group_rows() const {
    const int64_t num_panels = divide_up(product_.m, product_.kernel->rows);
    return product_.kernel->rows *
           std::clamp<int64_t>(num_panels / (threads_.count() * kTasksPerThread), 1, kGroup);
  }

  void multiply(const Block& block, int64_t group, int thread) const {
    const Gemm& p = block.product;
    const int64_t end = std::min(p.m, (group + 1) * group_rows());
    for (int64_t row = group * group_rows(); row < end; row += p.kernel->rows) {
      multiply_rows(p, {block.packed, p.k}, row, scratch_ + thread * kPanelFloats);
    }
  }

  Gemm product_;
  Blocks columns_;
  Blocks depths_;
  float* scratch_;
  const CpuThreads& threads_;
};

// An empty sum.
void copy_addend(const Gemm& p) {
  for (int64_t i = 0; i < p.m; ++i) {
    float* c = p.c + i * p.ldc;
    if (p.addend == nullptr) std::fill_n(c, p.n, 0.0f);
    if (p.addend != nullptr)
      std::memmove(c, p.addend + i * p.ld_addend, 4 * static_cast<size_t>(p.n));
  }
}

}  // namespace

int64_t packed_floats(int64_t n, int64_t k) { return round_up(n, kMaxGemmColumns) * k; }

PackedMatrix pack(const Matrix& b, int64_t n, int64_t k, float* panels, const GemmKernel& kernel) {
  for (int64_t i = 0; i < divide_up(n, kernel.columns); ++i) {
    pack_panel(kernel, b, n, k, i, panels);
  }
  return {panels, k};
}

PackedMatrix part_of(const PackedMatrix& b, int64_t row, int64_t column, const GemmKernel& kernel) {
  return {b.panels + column * b.depth + row * kernel.columns, b.depth};
}

void gemm_packed(const Gemm& p, const PackedMatrix& b, float* panel) {
  if (p.k == 0) return copy_addend(p);
  const Blocks depths(p.k, kMaxGemmDepth, 1);
  for (int64_t i = 0; i < depths.count(); ++i) {
    const Gemm part = depths_of(p, depths.begin(i), depths.end(i));
    const PackedMatrix part_of_b = part_of(b, depths.begin(i), 0, *p.kernel);
    for (int64_t row = 0; row < p.m; row += p.kernel->rows) {
      multiply_rows(part, part_of_b, row, panel);
    }
  }
}

int64_t gemm_scratch_floats(int64_t n, int64_t k, int num_threads) {
  const int64_t panels = num_threads * kPanelFloats;
  if (n == 0 || k == 0) return panels;
  const Blocks columns(n, kBlockColumns, kMaxGemmColumns);
  const Blocks depths(k, kMaxGemmDepth, 1);
  const int64_t num_held = std::min<int64_t>(2, columns.count() * depths.count());
  return panels + num_held * packed_floats(columns.block, depths.block);
}

void gemm(const Gemm& p, float* scratch, const CpuThreads& threads) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) return copy_addend(p);
  BlockedGemm(p, scratch, threads).run();
}

}  // namespace caravan::cpu
