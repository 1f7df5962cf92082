// Mixtures of experts: routing and sorting by expert. All of it reads and writes a few numbers per
// token and expert, so that what counts is the number of launches: two or three each. The rows of
// the experts' buffer are moved in moe_rows.cu, the products are in moe_matmul.cu.
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.cuh"
#include "runtime/cuda/reduce.cuh"
#include "runtime/cuda/vectors.cuh"
#include "runtime/cuda/workspace.h"

namespace caravan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int64_t kSharedBytes = 48 << 10;  // of a block, without asking for more
constexpr int64_t kMostSharedBytes = 200 << 10;

void check_experts(int64_t num_experts) {
  check_that(num_experts * 4 <= kMostSharedBytes, "more than 51,200 experts");
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// --- counts of experts ---------------------------------------------------------------------------

// Picks are cut into chunks by their number alone.
struct Chunks {
  explicit Chunks(int64_t num_picks)
      : picks(num_picks),
        picks_per_chunk(std::max<int64_t>(1024, divide_up(divide_up(num_picks, 512), 32) * 32)),
        count(divide_up(num_picks, picks_per_chunk)) {}
  int64_t picks;
  int64_t picks_per_chunk;
  int64_t count;  // at most 512
};

// counts (chunks, E): a block counts its chunk in shared memory. Counts are integers, so the order
// of atomic additions does not matter.
__global__ void count_kernel(const int32_t* experts, Chunks chunks, int num_experts,
                             int32_t* counts) {
  int* const of_block = shared_memory<int>();
  for (int e = threadIdx.x; e < num_experts; e += kThreads) of_block[e] = 0;
  __syncthreads();
  const int64_t begin = blockIdx.x * chunks.picks_per_chunk;
  const int64_t end = min(chunks.picks, begin + chunks.picks_per_chunk);
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) atomicAdd(&of_block[experts[i]], 1);
  __syncthreads();
  int32_t* const to = counts + int64_t{blockIdx.x} * num_experts;
  for (int e = threadIdx.x; e < num_experts; e += kThreads) to[e] = of_block[e];
}

void count_experts(const int32_t* experts, const Chunks& chunks, int64_t num_experts,
                   int32_t* counts, const Queue& queue) {
  check_experts(num_experts);
  launch({static_cast<unsigned>(chunks.count), kThreads, static_cast<int>(num_experts * 4)},
         queue.stream, count_kernel, experts, chunks, num_experts, counts);
}

__global__ void load_kernel(const int32_t* counts, int64_t num_chunks, int num_experts,
                            float* load) {
  const int e = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (e >= num_experts) return;
  int sum = 0;
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) sum += counts[chunk * num_experts + e];
  load[e] = static_cast<float>(sum);
}

// --- route ---------------------------------------------------------------------------------------

struct Pick {
  float value;
  int expert;
};
// The order in which experts are picked: the largest first, of equal ones the first expert.
__device__ inline bool precedes(const Pick& a, const Pick& b) {
  return a.value > b.value || (a.value == b.value && a.expert < b.expert);
}

__device__ inline Pick first_of_warp(Pick pick) {
  for (int bits = 16; bits > 0; bits /= 2) {
    const Pick other{__shfl_xor_sync(kAllLanes, pick.value, bits),
                     __shfl_xor_sync(kAllLanes, pick.expert, bits)};
    if (precedes(other, pick)) pick = other;
  }
  return pick;
}

// A warp for each token; each lane keeps the values of experts lane, lane + 32, ... A NaN counts as
// -inf: a sick step still picks experts that exist, each once.
__global__ void route_kernel(const float* logits, const float* bias, int64_t num_tokens,
                             int num_experts, int k, float* scores, int32_t* experts) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t t = int64_t{blockIdx.x} * (blockDim.x / 32) + warp;
  if (t >= num_tokens) return;
  const float* const row = logits + t * num_experts;
  float* const values = shared_memory<float>() + warp * num_experts;
  for (int e = lane; e < num_experts; e += 32) {
    const float value = bias == nullptr ? row[e] : sigmoid(row[e]) + bias[e];
    values[e] = value != value ? -INFINITY : value;
  }
  Pick last{INFINITY, -1};
  for (int j = 0; j < k; ++j) {
    Pick best{-INFINITY, num_experts};
    for (int e = lane; e < num_experts; e += 32) {
      const Pick candidate{values[e], e};
      if (precedes(last, candidate) && precedes(candidate, best)) best = candidate;
    }
    last = first_of_warp(best);
    if (lane != 0) continue;
    scores[t * k + j] = sigmoid(row[last.expert]);
    experts[t * k + j] = last.expert;
  }
}

}  // namespace

int64_t workspace_bytes(const Route& op, const WorkspaceQuery& query) {
  const Shape& logits = query.inputs[0].shape;
  return kWorkspaceSlack + taken_bytes<int32_t>(Chunks(logits[0] * op.top_k).count * logits[1]);
}

void run(const Route& op, const KernelArgs& args, const Queue& queue) {
  const int64_t num_tokens = args.inputs[0].dim(0), num_experts = args.inputs[0].dim(1);
  const float* const bias = args.inputs.size() > 1 ? args.inputs[1].as<float>() : nullptr;
  int32_t* const experts = args.outputs[1].as<int32_t>();
  check_experts(num_experts);
  const int64_t warps = std::clamp<int64_t>(kSharedBytes / (4 * num_experts), 1, kWarps);
  launch({static_cast<unsigned>(divide_up(num_tokens, warps)), static_cast<unsigned>(32 * warps),
          static_cast<int>(warps * num_experts * 4)},
         queue.stream, route_kernel, args.inputs[0].as<float>(), bias, num_tokens, num_experts,
         op.top_k, args.outputs[0].as<float>(), experts);
  const Chunks chunks(num_tokens * op.top_k);
  int32_t* const counts = Workspace(args).take<int32_t>(chunks.count * num_experts);
  count_experts(experts, chunks, num_experts, counts, queue);
  launch({static_cast<unsigned>(divide_up(num_experts, kThreads)), kThreads}, queue.stream,
         load_kernel, counts, chunks.count, num_experts, args.outputs[2].as<float>());
}

namespace {

struct Routing {
  const float* logits;     // (T,E)
  const int32_t* experts;  // (T,k)
  const float* dscores;    // (T,k)
  const float* fractions;  // (sequences, E); null without the balance loss
  float* dlogits;          // (T,E)
  int64_t num_tokens;
  int64_t sequence_len;
  int num_experts;
  int k;
  float balance;  // coefficients of the losses
  float z;
};

// f_e of a sequence, see `balance_gradient`: a block counts its picks.
__global__ void fraction_kernel(const int32_t* experts, int64_t picks, int num_experts, float scale,
                                float* fractions) {
  int* const counts = shared_memory<int>();
  for (int e = threadIdx.x; e < num_experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  const int32_t* const of_sequence = experts + blockIdx.x * picks;
  for (int64_t i = threadIdx.x; i < picks; i += kThreads) atomicAdd(&counts[of_sequence[i]], 1);
  __syncthreads();
  float* const to = fractions + int64_t{blockIdx.x} * num_experts;
  for (int e = threadIdx.x; e < num_experts; e += kThreads) {
    to[e] = static_cast<float>(counts[e]) * scale;
  }
}

// What a token's gradients have in common, the same in all lanes.
struct TokenSums {
  float lse;  // of the logits
  float sigmoids;
  float mean;  // of the fractions, by sigmoids
};

__device__ inline TokenSums sums_of_token(const Routing& r, const float* row, const float* fraction,
                                          int lane) {
  TokenSums sums{0, 0, 0};
  if (r.z != 0) {
    float largest = Max::kNeutral, sum = 0;
    for (int e = lane; e < r.num_experts; e += 32) largest = fmaxf(largest, row[e]);
    largest = reduce_warp(largest, Max{});
    for (int e = lane; e < r.num_experts; e += 32) sum += expf(row[e] - largest);
    sums.lse = largest + logf(reduce_warp(sum, Sum{}));
  }
  if (fraction != nullptr) {
    float weighted = 0;
    for (int e = lane; e < r.num_experts; e += 32) {
      const float s = sigmoid(row[e]);
      sums.sigmoids += s;
      weighted += fraction[e] * s;
    }
    sums.sigmoids = reduce_warp(sums.sigmoids, Sum{});
    sums.mean = reduce_warp(weighted, Sum{}) / sums.sigmoids;
  }
  return sums;
}

// A warp for each token. Of the balance loss, coef * sum over e of f_e * (sum over the sequence's
// tokens of p_te) with f_e = E / (k n) * (times that e was picked), p_te = sigmoid(logit_te) /
// their sum over e (DeepSeek-V3, section 2.1.2), and of the z-loss, coef * log(sum exp logits)^2.
__global__ void route_grad_kernel(Routing r) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t t = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (t >= r.num_tokens) return;
  const float* const row = r.logits + t * r.num_experts;
  const float* const fraction =
      r.fractions == nullptr ? nullptr : r.fractions + t / r.sequence_len * r.num_experts;
  const TokenSums sums = sums_of_token(r, row, fraction, lane);
  for (int e = lane; e < r.num_experts; e += 32) {
    const float s = sigmoid(row[e]), slope = s * (1 - s);
    float gradient = 0;
    for (int64_t a = t * r.k; a < (t + 1) * r.k; ++a) {
      if (r.experts[a] == e) gradient += r.dscores[a] * slope;
    }
    if (r.z != 0) gradient += 2 * r.z * sums.lse * expf(row[e] - sums.lse);
    if (fraction != nullptr) {
      gradient += r.balance * (fraction[e] - sums.mean) / sums.sigmoids * slope;
    }
    r.dlogits[t * r.num_experts + e] = gradient;
  }
}

int64_t num_sequences(const RouteGrad& op, int64_t num_tokens) {
  return op.aux_loss_coef == 0 ? 0 : num_tokens / op.sequence_len;
}

}  // namespace

int64_t workspace_bytes(const RouteGrad& op, const WorkspaceQuery& query) {
  const Shape& logits = query.inputs[0].shape;
  return kWorkspaceSlack + taken_bytes<float>(num_sequences(op, logits[0]) * logits[1]);
}

void run(const RouteGrad& op, const KernelArgs& args, const Queue& queue) {
  const int64_t num_tokens = args.inputs[0].dim(0), num_experts = args.inputs[0].dim(1);
  const int64_t k = args.inputs[1].dim(1), sequences = num_sequences(op, num_tokens);
  const int32_t* const experts = args.inputs[1].as<int32_t>();
  float* const fractions = Workspace(args).take<float>(sequences * num_experts);
  check_experts(num_experts);
  if (sequences > 0) {
    const int64_t picks = op.sequence_len * k;
    launch({static_cast<unsigned>(sequences), kThreads, static_cast<int>(num_experts * 4)},
           queue.stream, fraction_kernel, experts, picks, num_experts,
           static_cast<float>(num_experts) / static_cast<float>(picks), fractions);
  }
  const Routing routing{.logits = args.inputs[0].as<float>(),
                        .experts = experts,
                        .dscores = args.inputs[2].as<float>(),
                        .fractions = op.aux_loss_coef == 0 ? nullptr : fractions,
                        .dlogits = args.outputs[0].as<float>(),
                        .num_tokens = num_tokens,
                        .sequence_len = op.sequence_len,
                        .num_experts = static_cast<int>(num_experts),
                        .k = static_cast<int>(k),
                        .balance = op.aux_loss_coef,
                        .z = op.z_loss_coef};
  launch({static_cast<unsigned>(divide_up(num_tokens, kWarps)), kThreads}, queue.stream,
         route_grad_kernel, routing);
}

// --- assign --------------------------------------------------------------------------------------

namespace {

constexpr int kScanThreads = 1024;

// Inclusive, over the block.
__device__ inline int scan_block(int value) {
  __shared__ int of_warps[kScanThreads / 32];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (unsigned by = 1; by < 32; by *= 2) {
    const int below = __shfl_up_sync(kAllLanes, value, by);
    if (lane >= static_cast<int>(by)) value += below;
  }
  __syncthreads();  // the last call's sums have been read
  if (lane == 31) of_warps[warp] = value;
  __syncthreads();
  for (int w = 0; w < warp; ++w) value += of_warps[w];
  return value;
}

struct Sorting {
  int32_t* places;  // (chunks, E): counts, then where the chunk's picks of an expert begin in order
  int64_t num_chunks;
  int num_experts;
  int room;       // rows of an expert; more are dropped
  int groups;     // ranks that the experts are dealt out to
  int64_t quota;  // rows of a pass for the experts of a rank
  int64_t num_picks;
  int32_t* ends;
  float* further;
  float* dropped;
};

// Passes after the first: a pass has equal parts of its rows for the experts of each rank.
__device__ inline int64_t further_passes(const Sorting& s) {
  const int experts = s.num_experts / s.groups;
  int64_t further = 0;
  for (int g = 0; g < s.groups; ++g) {
    const int64_t begin = g == 0 ? 0 : s.ends[g * experts - 1];
    const int64_t count = s.ends[(g + 1) * experts - 1] - begin;
    further = max(further, (count + s.quota - 1) / s.quota - 1);
  }
  return further;
}

// One block, a thread for each expert.
__global__ void __launch_bounds__(kScanThreads) place_kernel(Sorting s) {
  __shared__ int last_end;
  int before = 0;  // picks of the experts of earlier rounds
  for (int first = 0; first < s.num_experts; first += kScanThreads) {
    const int e = first + static_cast<int>(threadIdx.x);
    const bool exists = e < s.num_experts;
    int count = 0;
    for (int64_t c = 0; exists && c < s.num_chunks; ++c) count += s.places[c * s.num_experts + e];
    const int kept = min(count, s.room);
    const int end = before + scan_block(kept);
    if (exists) s.ends[e] = end;
    int place = end - kept;
    for (int64_t c = 0; exists && c < s.num_chunks; ++c) {
      int32_t& at = s.places[c * s.num_experts + e];
      const int in_chunk = at;
      at = place;
      place += in_chunk;
    }
    if (threadIdx.x == kScanThreads - 1) last_end = end;
    __syncthreads();
    before = last_end;
  }
  if (threadIdx.x != 0) return;
  *s.further = static_cast<float>(further_passes(s));
  *s.dropped = static_cast<float>(s.num_picks - s.ends[s.num_experts - 1]);
}

// A warp for each chunk goes through it in order, so that the sort is stable: of the lanes with the
// same expert, each comes after those before it.
__global__ void order_kernel(const int32_t* experts, Chunks chunks, const int32_t* places,
                             const int32_t* ends, int num_experts, int32_t* order) {
  int* const next = shared_memory<int>();
  const int lane = static_cast<int>(threadIdx.x);
  const int32_t* const from = places + int64_t{blockIdx.x} * num_experts;
  for (int e = lane; e < num_experts; e += 32) next[e] = from[e];
  __syncwarp();
  const int64_t begin = blockIdx.x * chunks.picks_per_chunk;
  const int64_t end = min(chunks.picks, begin + chunks.picks_per_chunk);
  for (int64_t i = begin + lane; i - lane < end; i += 32) {
    const int expert = i < end ? experts[i] : -1;
    const unsigned same = __match_any_sync(kAllLanes, expert);
    const int rank = __popc(same & ((1u << lane) - 1));
    const int place = expert < 0 ? 0 : next[expert] + rank;
    __syncwarp();
    if (expert >= 0 && rank == 0) next[expert] += __popc(same);
    __syncwarp();
    if (expert >= 0 && place < ends[expert]) order[place] = static_cast<int32_t>(i);
  }
}

}  // namespace

int64_t workspace_bytes(const Assign& op, const WorkspaceQuery& query) {
  const Chunks chunks(query.outputs[0].shape[0]);
  return kWorkspaceSlack + taken_bytes<int32_t>(chunks.count * op.num_experts);
}

// A stable counting sort.
void run(const Assign& op, const KernelArgs& args, const Queue& queue) {
  const TensorView& experts = args.inputs[0];
  const Chunks chunks(experts.size());
  const int64_t rows = experts.dim(0) / op.slots.sequence_len * op.slots.per_sequence;
  const int groups = args.communicator == nullptr ? 1 : args.communicator->size();
  check_that(rows / groups > 0, "[assign] too few rows to serve all ranks");
  int32_t* const places = Workspace(args).take<int32_t>(chunks.count * op.num_experts);
  int32_t* const ends = args.outputs[1].as<int32_t>();
  count_experts(experts.as<int32_t>(), chunks, op.num_experts, places, queue);
  const int64_t room = op.slots.drops ? rows / op.num_experts : experts.size();
  const Sorting sorting{.places = places,
                        .num_chunks = chunks.count,
                        .num_experts = static_cast<int>(op.num_experts),
                        .room = static_cast<int>(room),
                        .groups = groups,
                        .quota = rows / groups,
                        .num_picks = experts.size(),
                        .ends = ends,
                        .further = args.outputs[2].as<float>(),
                        .dropped = args.outputs[3].as<float>()};
  launch({1, kScanThreads}, queue.stream, place_kernel, sorting);
  launch({static_cast<unsigned>(chunks.count), 32, static_cast<int>(op.num_experts * 4)},
         queue.stream, order_kernel, experts.as<int32_t>(), chunks, places, ends, op.num_experts,
         args.outputs[0].as<int32_t>());
}

// --- never run: expand_experts has made other ops of them ----------------------------------------

void run(const Experts&, const KernelArgs&, const Queue&) {
  check_that(false, "experts was not expanded");
}
void run(const ExpertsGrad&, const KernelArgs&, const Queue&) {
  check_that(false, "experts_grad was not expanded");
}

}  // namespace caravan::cuda
