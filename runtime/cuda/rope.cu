// What depends on where a token is: rotary position embedding in both layouts, and what Llama 4
// adds to it. One pass over memory each.
//
// A block of the rotation takes some tokens: it makes the cosines and sines of their angles, shared
// by all heads, and turns pairs with them. Angles are counted in quarter turns, in double: taking
// whole ones away is then exact, however far the position, and what is left needs f32 only.
#include <cmath>
#include <numbers>

#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/rope_frequency.h"

namespace caravan::cuda {
namespace {

// --- rotation ------------------------------------------------------------------------------------

constexpr int kThreads = 256;
constexpr int kMostPairs = 256;      // of a launch; heads are seldom wider than 2 * 128
constexpr int kMostAngles = 2048;    // of a block
constexpr int kItemsOfBlock = 1024;  // 4 of a thread

// Pairs [first, first + count) of every head.
template <typename T>
struct Rotation {
  const T* x;
  const int32_t* positions;
  T* y;
  int64_t num_tokens;
  int heads;
  int pairs_of_head;
  int first;
  int count;
  int tokens_of_block;
  double quarter_turns[kMostPairs];  // per position; negative: back
};

// cos and sin of a quarter turn's multiple.
__device__ void cos_sin(double quarters, float& cosine, float& sine) {
  const double whole = rint(quarters);
  float c = 0, s = 0;
  sincospif(0.5f * static_cast<float>(quarters - whole), &s, &c);
  const int quadrant = static_cast<int>(static_cast<long long>(whole) & 3);
  const float swapped_c = quadrant % 2 == 0 ? c : s, swapped_s = quadrant % 2 == 0 ? s : c;
  cosine = quadrant == 1 || quadrant == 2 ? -swapped_c : swapped_c;
  sine = quadrant >= 2 ? -swapped_s : swapped_s;
}

// kSize pairs: (x[i], x[i + pairs]) in two halves of a head, or neighbours.
template <int kSize, bool kInterleaved, typename T>
__device__ void rotate(const Rotation<T>& r, int64_t head_at, int pair, const float* cosines,
                       const float* sines) {
  const int64_t at = head_at + (kInterleaved ? 2 * pair : pair);
  const int64_t behind = at + (kInterleaved ? kSize : r.pairs_of_head);
  const Pack<T, kSize> low = load_pack<kSize>(r.x + at), high = load_pack<kSize>(r.x + behind);
  Pack<T, kSize> out_low, out_high;
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    const int first = 2 * i, second = 2 * i + 1;  // of neighbours, in both packs
    const auto in = [&](int j) { return to_float(j < kSize ? low.at[j] : high.at[j - kSize]); };
    const auto out = [&](int j) -> T& {
      return j < kSize ? out_low.at[j] : out_high.at[j - kSize];
    };
    const int a_at = kInterleaved ? first : i, b_at = kInterleaved ? second : kSize + i;
    const float a = in(a_at), b = in(b_at);
    out(a_at) = from_float<T>(a * cosines[i] - b * sines[i]);
    out(b_at) = from_float<T>(a * sines[i] + b * cosines[i]);
  }
  store_pack(r.y + at, out_low);
  store_pack(r.y + behind, out_high);
}

template <int kSize, bool kInterleaved, typename T>
__global__ void __launch_bounds__(kThreads) rope_kernel(Rotation<T> r) {
  float* const cosines = shared_memory<float>();  // (tokens, count)
  float* const sines = cosines + r.tokens_of_block * r.count;
  const int64_t first_token = int64_t{blockIdx.x} * r.tokens_of_block;
  const int tokens = static_cast<int>(min(int64_t{r.tokens_of_block}, r.num_tokens - first_token));
  for (int i = static_cast<int>(threadIdx.x); i < tokens * r.count; i += kThreads) {
    const double position = r.positions[first_token + i / r.count];
    cos_sin(position * r.quarter_turns[i % r.count], cosines[i], sines[i]);
  }
  __syncthreads();
  const int packs = r.count / kSize, items = r.heads * packs;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < tokens * items; i += kThreads) {
    const int token = i / items, head = i % items / packs, pair = i % packs * kSize;
    const int64_t head_at = ((first_token + token) * r.heads + head) * 2 * r.pairs_of_head;
    const int angle = token * r.count + pair;
    rotate<kSize, kInterleaved>(r, head_at, r.first + pair, cosines + angle, sines + angle);
  }
}

template <int kSize, bool kInterleaved, typename T>
void launch_rope(Rotation<T>& r, cudaStream_t stream) {
  const int items = r.heads * (r.count / kSize);
  r.tokens_of_block = std::max(1, std::min(kItemsOfBlock / items, kMostAngles / r.count));
  const auto blocks = static_cast<unsigned>(divide_up(r.num_tokens, r.tokens_of_block));
  const int shared_bytes = 2 * r.tokens_of_block * r.count * static_cast<int>(sizeof(float));
  launch({blocks, kThreads, shared_bytes}, stream, rope_kernel<kSize, kInterleaved, T>, r);
}

template <typename T>
void rotate_pairs(const Rope& op, Rotation<T>& r, cudaStream_t stream) {
  constexpr int kSize = kFullPack<T>;
  for (int i = 0; i < r.count; ++i) {
    const double turns = rope_frequency(op, r.first + i) * 2.0 / std::numbers::pi;
    r.quarter_turns[i] = op.inverse ? -turns : turns;
  }
  const bool by_packs = r.pairs_of_head % kSize == 0 && are_vector_aligned(r.x, r.y);
  if (op.interleaved) {
    by_packs ? launch_rope<kSize, true>(r, stream) : launch_rope<1, true>(r, stream);
  } else {
    by_packs ? launch_rope<kSize, false>(r, stream) : launch_rope<1, false>(r, stream);
  }
}

// --- scale by position ---------------------------------------------------------------------------

template <typename T>
struct TemperatureBody : PlainBody {
  const T* x;
  const int32_t* positions;
  T* y;
  int64_t width;
  double floor_scale;
  float attn_scale;

  template <int kSize>
  struct Loaded {
    Pack<T, kSize> x;
    int position;
  };
  template <int kSize>
  __device__ Loaded<kSize> load(int64_t row, int64_t column) const {
    return {load_pack<kSize>(x + row * width + column), positions[row]};
  }
  template <int kSize>
  __device__ void store(const Loaded<kSize>& in, int64_t row, int64_t column) const {
    const double steps = floor((in.position + 1.0) / floor_scale);
    const float scale = 1.0f + attn_scale * log1pf(static_cast<float>(steps));
    Pack<T, kSize> out;
#pragma unroll
    for (int i = 0; i < kSize; ++i) out.at[i] = from_float<T>(scale * to_float(in.x.at[i]));
    store_pack(y + row * width + column, out);
  }
};

// --- chunks --------------------------------------------------------------------------------------

struct Chunks {
  int64_t first_token;  // of this rank, in the batch
  int64_t sequence_len;
  int64_t chunk;
};

// Chunks are counted from the start of the document, as positions are.
__global__ void chunk_start_kernel(const int32_t* starts, int32_t* out, int64_t count, Chunks c) {
  const int64_t t = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (t >= count) return;
  const int64_t start = starts[t];
  const int64_t inside = (c.first_token + t) % c.sequence_len - start;
  out[t] = static_cast<int32_t>(start + inside / c.chunk * c.chunk);
}

}  // namespace

void run(const Rope& op, const KernelArgs& args, const Queue& queue) {
  if (args.outputs[0].size() == 0) return;
  const int64_t pairs = op.head_dim / 2;
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    Rotation<T> rotation{.x = args.inputs[0].as<T>(),
                         .positions = args.inputs[1].as<int32_t>(),
                         .y = args.outputs[0].as<T>(),
                         .num_tokens = args.inputs[0].dim(0),
                         .heads = static_cast<int>(args.inputs[0].dim(1) / op.head_dim),
                         .pairs_of_head = static_cast<int>(pairs),
                         .first = 0,
                         .count = 0,
                         .tokens_of_block = 1,
                         .quarter_turns = {}};
    for (int64_t first = 0; first < pairs; first += kMostPairs) {
      rotation.first = static_cast<int>(first);
      rotation.count = static_cast<int>(std::min<int64_t>(kMostPairs, pairs - first));
      rotate_pairs(op, rotation, queue.stream);
    }
  });
}

void run(const TemperatureScale& op, const KernelArgs& args, const Queue& queue) {
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t width = args.inputs[0].dim(1);
    const TemperatureBody<T> body{
        {},    args.inputs[0].as<T>(), args.inputs[1].as<int32_t>(),     args.outputs[0].as<T>(),
        width, op.floor_scale,         static_cast<float>(op.attn_scale)};
    launch_rows<kFullPack<T>>(body, args.outputs[0].dim(0), width,
                              are_vector_aligned(body.x, body.y), queue.stream);
  });
}

void run(const ChunkStart& op, const KernelArgs& args, const Queue& queue) {
  const TensorView& starts = args.inputs[0];
  const Chunks chunks{starts.begin(0), op.sequence_len, op.chunk};
  const auto blocks = static_cast<unsigned>(divide_up(starts.size(), kThreads));
  launch({blocks, kThreads}, queue.stream, chunk_start_kernel, starts.as<int32_t>(),
         args.outputs[0].as<int32_t>(), starts.size(), chunks);
}

}  // namespace caravan::cuda
