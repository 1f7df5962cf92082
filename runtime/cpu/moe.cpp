// Mixtures of experts: routing, sorting by expert, rows to and from the experts' buffer. The
// products are in moe_matmul.cpp.
#include <cmath>
#include <numeric>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/row_chunks.h"
#include "runtime/cpu/scratch.h"
#include "runtime/error.h"

namespace caravan::cpu {
namespace {

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

int64_t num_groups(const KernelArgs& args) {
  return args.communicator == nullptr ? 1 : args.communicator->size();
}

}  // namespace

// --- route ---------------------------------------------------------------------------------------

namespace {

// The k largest of a token, the largest first, of equal ones the first expert: logits, or scores
// plus bias.
void pick(const float* logits, const float* bias, int64_t num_experts, std::span<int32_t> picked) {
  for (size_t j = 0; j < picked.size(); ++j) {
    int32_t best = -1;
    float best_value = 0;
    for (int32_t e = 0; e < num_experts; ++e) {
      if (std::ranges::find(picked.first(j), e) != picked.begin() + static_cast<int64_t>(j))
        continue;
      const float value = bias == nullptr ? logits[e] : sigmoid(logits[e]) + bias[e];
      if (best >= 0 && !(value > best_value)) continue;
      best = e;
      best_value = value;
    }
    picked[j] = best;
  }
}

}  // namespace

int64_t workspace_bytes(const Route&, const WorkspaceQuery& query) {
  const Shape& logits = query.inputs[0].shape;
  return scratch_bytes<float>(RowChunks(logits[0]).count * logits[1]);
}

void run(const Route& op, const KernelArgs& args, const CpuThreads& threads) {
  const float* logits = args.inputs[0].as<float>();
  const float* bias = args.inputs.size() > 1 ? args.inputs[1].as<float>() : nullptr;
  float* scores = args.outputs[0].as<float>();
  int32_t* experts = args.outputs[1].as<int32_t>();
  const int64_t num_experts = args.inputs[0].dim(1), k = op.top_k;
  const RowChunks chunks(args.inputs[0].dim(0));
  float* loads = Scratch(args).take<float>(chunks.count * num_experts);
  threads.for_each(chunks.count, [&](int64_t chunk, int) {
    float* load = loads + chunk * num_experts;
    std::fill_n(load, num_experts, 0.0f);
    for (int64_t t = chunks.begin(chunk); t < chunks.end(chunk); ++t) {
      const float* row = logits + t * num_experts;
      pick(row, bias, num_experts, {experts + t * k, static_cast<size_t>(k)});
      for (int64_t a = t * k; a < (t + 1) * k; ++a) {
        scores[a] = sigmoid(row[experts[a]]);
        load[experts[a]] += 1;
      }
    }
  });
  sum_partials(loads, chunks.count, num_experts, args.outputs[2].as<float>(), threads);
}

namespace {

struct Routing {
  const float* logits;     // (T,E)
  const int32_t* experts;  // (T,k)
  float* dlogits;          // (T,E)
  int64_t num_experts;
  int64_t k;
};

// Adds the gradient of coef * log(sum exp logits)^2 of one token.
void add_z_loss(const Routing& r, int64_t t, float coef) {
  const float* row = r.logits + t * r.num_experts;
  const float largest = *std::max_element(row, row + r.num_experts);
  float sum = 0;
  for (int64_t e = 0; e < r.num_experts; ++e) sum += std::exp(row[e] - largest);
  const float lse = largest + std::log(sum);
  for (int64_t e = 0; e < r.num_experts; ++e) {
    r.dlogits[t * r.num_experts + e] += 2 * coef * lse * std::exp(row[e] - lse);
  }
}

// Adds the gradient of coef * sum over e of f_e * (sum over the sequence's tokens of p_te), with
// f_e = E / (k n) * (times that e was picked), p_te = sigmoid(logit_te) / their sum over e
// (DeepSeek-V3, section 2.1.2). `fraction` (E) is scratch.
void add_balance_loss(const Routing& r, int64_t first, int64_t n, float coef, float* fraction) {
  std::fill_n(fraction, r.num_experts, 0.0f);
  for (int64_t a = first * r.k; a < (first + n) * r.k; ++a) fraction[r.experts[a]] += 1;
  const float scale = static_cast<float>(r.num_experts) / static_cast<float>(r.k * n);
  for (int64_t e = 0; e < r.num_experts; ++e) fraction[e] *= scale;
  for (int64_t t = first; t < first + n; ++t) {
    const float* row = r.logits + t * r.num_experts;
    float sum = 0, mean = 0;
    for (int64_t e = 0; e < r.num_experts; ++e) {
      sum += sigmoid(row[e]);
      mean += fraction[e] * sigmoid(row[e]);
    }
    mean /= sum;
    for (int64_t e = 0; e < r.num_experts; ++e) {
      const float s = sigmoid(row[e]);
      r.dlogits[t * r.num_experts + e] += coef * (fraction[e] - mean) / sum * s * (1 - s);
    }
  }
}

}  // namespace

int64_t workspace_bytes(const RouteGrad&, const WorkspaceQuery& query) {
  return query.num_threads * scratch_bytes<float>(query.inputs[0].shape[1]);
}

void run(const RouteGrad& op, const KernelArgs& args, const CpuThreads& threads) {
  const Routing r{args.inputs[0].as<float>(), args.inputs[1].as<int32_t>(),
                  args.outputs[0].as<float>(), args.inputs[0].dim(1), args.inputs[1].dim(1)};
  const float* dscores = args.inputs[2].as<float>();
  const ThreadScratch scratch(args, scratch_bytes<float>(r.num_experts), threads.count());
  const int64_t num_tokens = args.inputs[0].dim(0);
  // Shards of tokens may cut sequences while no loss of whole ones is asked for.
  const int64_t n = op.aux_loss_coef == 0 ? std::min<int64_t>(num_tokens, 64) : op.sequence_len;
  threads.for_each((num_tokens + n - 1) / n, [&](int64_t part, int thread) {
    const int64_t first = part * n, end = std::min(num_tokens, first + n);
    std::fill(r.dlogits + first * r.num_experts, r.dlogits + end * r.num_experts, 0.0f);
    for (int64_t t = first; t < end; ++t) {
      for (int64_t a = t * r.k; a < (t + 1) * r.k; ++a) {
        const int64_t at = t * r.num_experts + r.experts[a];
        const float s = sigmoid(r.logits[at]);
        r.dlogits[at] += dscores[a] * s * (1 - s);
      }
      if (op.z_loss_coef != 0) add_z_loss(r, t, op.z_loss_coef);
    }
    if (op.aux_loss_coef == 0) return;
    float* fraction = scratch.of(thread).take<float>(r.num_experts);
    add_balance_loss(r, first, end - first, op.aux_loss_coef, fraction);
  });
}

// --- assign --------------------------------------------------------------------------------------

namespace {

// Passes after the first: a pass has equal parts of its rows for the experts of each rank.
int64_t further_passes(std::span<const int32_t> ends, int64_t groups, int64_t rows) {
  const int64_t experts = std::ssize(ends) / groups, quota = rows / groups;
  check(quota > 0, "[assign] %d rows cannot serve %d ranks", rows, groups);
  int64_t further = 0;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g == 0 ? 0 : ends[static_cast<size_t>(g * experts - 1)];
    const int64_t count = ends[static_cast<size_t>((g + 1) * experts - 1)] - begin;
    further = std::max(further, (count + quota - 1) / quota - 1);
  }
  return further;
}

}  // namespace

int64_t workspace_bytes(const Assign& op, const WorkspaceQuery&) {
  return scratch_bytes<int32_t>(op.num_experts);
}

// A stable counting sort.
void run(const Assign& op, const KernelArgs& args, const CpuThreads&) {
  const std::span experts(args.inputs[0].as<int32_t>(), static_cast<size_t>(args.inputs[0].size()));
  int32_t* order = args.outputs[0].as<int32_t>();
  const std::span ends(args.outputs[1].as<int32_t>(), static_cast<size_t>(op.num_experts));
  int32_t* next = Scratch(args).take<int32_t>(op.num_experts);
  const int64_t rows = num_rows(op.slots, args.inputs[0].dim(0));
  std::ranges::fill(ends, 0);
  for (const int32_t e : experts) ++ends[static_cast<size_t>(e)];
  if (op.slots.drops) {
    const auto room = static_cast<int32_t>(rows / op.num_experts);
    for (int32_t& count : ends) count = std::min(count, room);
  }
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  next[0] = 0;
  std::copy(ends.begin(), ends.end() - 1, next + 1);
  for (size_t a = 0; a < experts.size(); ++a) {
    const int32_t e = experts[a];
    if (next[e] < ends[static_cast<size_t>(e)]) order[next[e]++] = static_cast<int32_t>(a);
  }
  const int64_t dropped = std::ssize(experts) - ends.back();
  *args.outputs[2].as<float>() = static_cast<float>(further_passes(ends, num_groups(args), rows));
  *args.outputs[3].as<float>() = static_cast<float>(dropped);
}

// --- rows of a pass ------------------------------------------------------------------------------

namespace {

// What is sorted, and the part of it that a pass takes: for the experts of each rank at most
// `quota`, one rank's after another's.
struct Pass {
  std::span<const int32_t> order;
  std::span<const int32_t> ends;
  int64_t groups;
  int64_t quota;
  int64_t number;

  struct Window {
    int64_t begin;  // in order
    int64_t end;
  };
  Window window(int64_t group) const {
    const int64_t experts = std::ssize(ends) / groups;
    const int64_t begin = group == 0 ? 0 : ends[static_cast<size_t>(group * experts - 1)];
    const int64_t end = ends[static_cast<size_t>((group + 1) * experts - 1)];
    return {std::min(end, begin + number * quota), std::min(end, begin + (number + 1) * quota)};
  }

  // body(row, pick) for every row of the pass; pick = t * k + j.
  template <typename Body>
  void for_each_row(const Body& body) const {
    int64_t row = 0;
    for (int64_t g = 0; g < groups; ++g) {
      const Window w = window(g);
      for (int64_t i = w.begin; i < w.end; ++i) body(row++, order[static_cast<size_t>(i)]);
    }
  }
};

// Inputs first, first + 1, first + 2: order, ends, pass.
Pass pass_of(const KernelArgs& args, size_t first, int64_t rows) {
  const TensorView& order = args.inputs[first];
  const TensorView& ends = args.inputs[first + 1];
  const int64_t groups = num_groups(args);
  return {.order = {order.as<int32_t>(), static_cast<size_t>(order.size())},
          .ends = {ends.as<int32_t>(), static_cast<size_t>(ends.size())},
          .groups = groups,
          .quota = rows / groups,
          .number = static_cast<int64_t>(*args.inputs[first + 2].as<float>())};
}

// By pick: its row in the pass, -1 where it has none.
const int32_t* rows_by_pick(const Pass& pass, const KernelArgs& args) {
  int32_t* rows = Scratch(args).take<int32_t>(std::ssize(pass.order));
  std::fill_n(rows, pass.order.size(), -1);
  pass.for_each_row([&](int64_t row, int32_t pick) { rows[pick] = static_cast<int32_t>(row); });
  return rows;
}

void count_rows(const Pass& pass, int32_t* counts) {
  const int64_t experts = std::ssize(pass.ends) / pass.groups;
  for (int64_t e = 0; e < std::ssize(pass.ends); ++e) {
    const Pass::Window w = pass.window(e / experts);
    const int64_t begin = e == 0 ? 0 : pass.ends[static_cast<size_t>(e - 1)];
    const int64_t end = pass.ends[static_cast<size_t>(e)];
    counts[e] =
        static_cast<int32_t>(std::max<int64_t>(0, std::min(end, w.end) - std::max(begin, w.begin)));
  }
}

}  // namespace

int64_t workspace_bytes(const Dispatch&, const WorkspaceQuery& query) {
  return scratch_bytes<int32_t>(query.outputs[0].shape[0]);
}

void run(const Dispatch& op, const KernelArgs& args, const CpuThreads& threads) {
  const float* x = args.inputs[0].as<float>();
  const float* scores = args.inputs[1].as<float>();
  float* rows = args.outputs[0].as<float>();
  const int64_t width = args.inputs[0].dim(1), k = args.inputs[1].dim(1);
  const Pass pass = pass_of(args, 2, args.outputs[0].dim(0));
  count_rows(pass, args.outputs[1].as<int32_t>());
  int32_t* picks = Scratch(args).take<int32_t>(args.outputs[0].dim(0));
  int64_t num_picks = 0;
  pass.for_each_row([&](int64_t row, int32_t pick) {
    picks[row] = pick;
    num_picks = row + 1;
  });
  threads.for_chunks(num_picks, 64, [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float scale = op.weighted ? scores[picks[row]] : 1.0f;
      const float* from = x + picks[row] / k * width;
      float* to = rows + row * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) to[i] = scale * from[i];
    }
  });
}

int64_t workspace_bytes(const Combine&, const WorkspaceQuery& query) {
  return scratch_bytes<int32_t>(query.inputs[1].shape[0]);
}

void run(const Combine& op, const KernelArgs& args, const CpuThreads& threads) {
  const float* rows = args.inputs[0].as<float>();
  const float* addend = addend_of(op, args);
  float* out = args.outputs[0].as<float>();
  const int64_t width = args.outputs[0].dim(1), k = op.top_k;
  const int32_t* row_of = rows_by_pick(pass_of(args, 1, args.inputs[0].dim(0)), args);
  threads.for_chunks(args.outputs[0].dim(0), 64, [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* to = out + t * width;
      if (addend == nullptr) std::fill_n(to, width, 0.0f);
      if (addend != nullptr && addend != out) std::copy_n(addend + t * width, width, to);
      for (int64_t a = t * k; a < (t + 1) * k; ++a) {
        if (row_of[a] < 0) continue;
        const float* from = rows + row_of[a] * width;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) to[i] += from[i];
      }
    }
  });
}

int64_t workspace_bytes(const DispatchGrad&, const WorkspaceQuery& query) {
  return scratch_bytes<int32_t>(query.inputs[2].shape[0]);
}

void run(const DispatchGrad& op, const KernelArgs& args, const CpuThreads& threads) {
  const float* x = args.inputs[0].as<float>();
  const float* scores = args.inputs[1].as<float>();
  const float* drows = args.inputs[5].as<float>();
  float* dx = args.outputs[0].as<float>();
  float* dscores = args.outputs[1].as<float>();
  const int64_t width = args.inputs[0].dim(1), k = args.inputs[1].dim(1);
  const int32_t* row_of = rows_by_pick(pass_of(args, 2, args.inputs[5].dim(0)), args);
  threads.for_chunks(args.inputs[0].dim(0), 64, [=, &op](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* to = dx + t * width;
      if (!op.adds_in_place) {
        std::fill_n(to, width, 0.0f);
        std::fill_n(dscores + t * k, k, 0.0f);
      }
      for (int64_t a = t * k; a < (t + 1) * k; ++a) {
        if (row_of[a] < 0) continue;
        const float* from = drows + row_of[a] * width;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < width; ++i) {
          to[i] += scores[a] * from[i];
          dot += x[t * width + i] * from[i];
        }
        dscores[a] += dot;
      }
    }
  });
}

// Never run: expand_experts has made other ops of them.
void run(const Experts&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[experts] was not expanded");
}
void run(const ExpertsGrad&, const KernelArgs&, const CpuThreads&) {
  throw internal_error("[experts_grad] was not expanded");
}

}  // namespace caravan::cpu
