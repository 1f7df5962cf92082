// The ops of mixtures of experts as their formulas say; see reference.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/cpu/reference.h"
#include "runtime/cpu/reference_matrix.h"

namespace caravan::reference {
namespace {

// The expert of each pick that is kept, in order.
std::vector<int64_t> experts_in_order(const TensorView& ends) {
  std::vector<int64_t> experts;
  for (int64_t e = 0; e < ends.size(); ++e) {
    while (std::ssize(experts) < ends.as<int32_t>()[e]) experts.push_back(e);
  }
  return experts;
}

int64_t num_ranks(const KernelArgs& args) {
  return args.communicator == nullptr ? 1 : args.communicator->size();
}

struct Row {
  int32_t pick;  // t * k + j
  int64_t expert;
};

// What a pass takes: of the picks for each rank's experts as many as fit into its equal part of
// the rows, and those that earlier passes took not again. Input number `order` and the two behind
// it say what there is and which pass it is.
std::vector<Row> rows_of_pass(const KernelArgs& args, size_t order, int64_t num_rows) {
  const std::vector<int64_t> experts = experts_in_order(args.inputs[order + 1]);
  const int64_t ranks = num_ranks(args), num_experts = args.inputs[order + 1].size();
  const auto pass = static_cast<int64_t>(scalar(args.inputs[order + 2]));
  std::vector<int64_t> seen(static_cast<size_t>(ranks), 0);
  std::vector<Row> rows;
  for (size_t i = 0; i < experts.size(); ++i) {
    const int64_t rank = experts[i] * ranks / num_experts;
    const int64_t taken_in = seen[static_cast<size_t>(rank)]++ / (num_rows / ranks);
    if (taken_in == pass) rows.push_back({args.inputs[order].as<int32_t>()[i], experts[i]});
  }
  return rows;
}

std::vector<int64_t> experts_of_counts(const TensorView& counts, int64_t num_experts) {
  std::vector<int64_t> experts;
  for (int64_t i = 0; i < counts.size(); ++i) {
    experts.insert(experts.end(), static_cast<size_t>(counts.as<int32_t>()[i]), i % num_experts);
  }
  return experts;
}

}  // namespace

void run(const Route& op, const KernelArgs& args) {
  const TensorView& logits = args.inputs[0];
  const int64_t num_experts = logits.dim(1);
  std::fill_n(args.outputs[2].as<float>(), num_experts, 0.0f);
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    const float* row = logits.as<float>() + t * num_experts;
    std::vector<int32_t> by_value;
    for (int32_t e = 0; e < num_experts; ++e) by_value.push_back(e);
    std::stable_sort(by_value.begin(), by_value.end(), [&](int32_t a, int32_t b) {
      const auto value = [&](int32_t e) -> float {
        if (args.inputs.size() == 1) return row[e];
        return rounded(sigmoid(row[e])) + args.inputs[1].as<float>()[e];
      };
      return value(a) > value(b);
    });
    for (int64_t j = 0; j < op.top_k; ++j) {
      const int32_t e = by_value[static_cast<size_t>(j)];
      args.outputs[0].as<float>()[t * op.top_k + j] = rounded(sigmoid(row[e]));
      args.outputs[1].as<int32_t>()[t * op.top_k + j] = e;
      args.outputs[2].as<float>()[e] += 1;
    }
  }
}

namespace {

// The gradients are numeric: of the losses as they are written down.
double balance_loss(const RouteGrad& op, const KernelArgs& args, const std::vector<double>& logits,
                    int64_t first) {
  const int64_t num_experts = args.inputs[0].dim(1), k = args.inputs[1].dim(1);
  double loss = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    double picked = 0, probability = 0;
    for (int64_t t = first; t < first + op.sequence_len; ++t) {
      for (int64_t j = 0; j < k; ++j) picked += args.inputs[1].as<int32_t>()[t * k + j] == e;
      double sum = 0;
      for (int64_t i = 0; i < num_experts; ++i) {
        sum += sigmoid(logits[static_cast<size_t>(t * num_experts + i)]);
      }
      probability += sigmoid(logits[static_cast<size_t>(t * num_experts + e)]) / sum;
    }
    loss += picked * static_cast<double>(num_experts) / static_cast<double>(k * op.sequence_len) *
            probability;
  }
  return op.aux_loss_coef * loss;
}

double z_loss(const RouteGrad& op, const std::vector<double>& logits, int64_t num_experts,
              int64_t t) {
  double sum = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    sum += std::exp(logits[static_cast<size_t>(t * num_experts + e)]);
  }
  return op.z_loss_coef * std::log(sum) * std::log(sum);
}

}  // namespace

void run(const RouteGrad& op, const KernelArgs& args) {
  const int64_t num_experts = args.inputs[0].dim(1), k = args.inputs[1].dim(1);
  const float* given = args.inputs[0].as<float>();
  std::vector<double> logits(given, given + args.inputs[0].size());
  const auto loss = [&](int64_t t) {
    double sum = z_loss(op, logits, num_experts, t);
    if (op.aux_loss_coef != 0) {
      sum += balance_loss(op, args, logits, t / op.sequence_len * op.sequence_len);
    }
    for (int64_t a = t * k; a < (t + 1) * k; ++a) {
      const int64_t at = t * num_experts + args.inputs[1].as<int32_t>()[a];
      sum += args.inputs[2].as<float>()[a] * sigmoid(logits[static_cast<size_t>(at)]);
    }
    return sum;
  };
  for (int64_t i = 0; i < args.inputs[0].size(); ++i) {
    constexpr double kStep = 1e-5;
    double& at = logits[static_cast<size_t>(i)];
    const double kept = at;
    at = kept + kStep;
    const double above = loss(i / num_experts);
    at = kept - kStep;
    const double below = loss(i / num_experts);
    at = kept;
    args.outputs[0].as<float>()[i] = rounded((above - below) / (2 * kStep));
  }
}

void run(const Assign& op, const KernelArgs& args) {
  const TensorView& experts = args.inputs[0];
  const int64_t rows = num_rows(op.slots, experts.dim(0));
  const int64_t room = op.slots.drops ? rows / op.num_experts : experts.size();
  int32_t* order = args.outputs[0].as<int32_t>();
  int32_t kept = 0;
  std::vector<int64_t> of_rank(static_cast<size_t>(num_ranks(args)), 0);
  for (int32_t e = 0; e < op.num_experts; ++e) {
    int64_t taken = 0;
    for (int32_t a = 0; a < experts.size(); ++a) {
      if (experts.as<int32_t>()[a] != e || taken++ >= room) continue;
      order[kept++] = a;
      ++of_rank[static_cast<size_t>(e * num_ranks(args) / op.num_experts)];
    }
    args.outputs[1].as<int32_t>()[e] = kept;
  }
  const int64_t quota = rows / num_ranks(args), most = std::ranges::max(of_rank);
  scalar(args.outputs[2]) = std::max(0.0f, std::ceil(float(most) / float(quota)) - 1);
  *args.outputs[3].as<float>() = static_cast<float>(experts.size() - kept);
}

void run(const Dispatch& op, const KernelArgs& args) {
  const int64_t width = args.inputs[0].dim(1), k = args.inputs[1].dim(1);
  std::fill_n(args.outputs[1].as<int32_t>(), args.outputs[1].size(), 0);
  int64_t row = 0;
  for (const auto& [pick, expert] : rows_of_pass(args, 2, args.outputs[0].dim(0))) {
    const double scale = op.weighted ? args.inputs[1].as<float>()[pick] : 1.0f;
    for (int64_t i = 0; i < width; ++i) {
      args.outputs[0].as<float>()[row * width + i] =
          rounded(scale * args.inputs[0].as<float>()[pick / k * width + i]);
    }
    ++args.outputs[1].as<int32_t>()[expert];
    ++row;
  }
}

void run(const DispatchGrad& op, const KernelArgs& args) {
  const int64_t width = args.inputs[0].dim(1), k = args.inputs[1].dim(1);
  float* dx = args.outputs[0].as<float>();
  float* dscores = args.outputs[1].as<float>();
  if (!op.adds_in_place) {
    std::fill_n(dx, args.outputs[0].size(), 0.0f);
    std::fill_n(dscores, args.outputs[1].size(), 0.0f);
  }
  int64_t row = 0;
  for (const auto& [pick, expert] : rows_of_pass(args, 2, args.inputs[5].dim(0))) {
    double dot = 0;
    for (int64_t i = 0; i < width; ++i) {
      const double drow = args.inputs[5].as<float>()[row * width + i];
      const int64_t at = pick / k * width + i;
      dx[at] = rounded(dx[at] + args.inputs[1].as<float>()[pick] * drow);
      dot += args.inputs[0].as<float>()[at] * drow;
    }
    dscores[pick] = rounded(dscores[pick] + dot);
    ++row;
  }
}

void run(const Combine& op, const KernelArgs& args) {
  const int64_t width = args.outputs[0].dim(1);
  float* out = args.outputs[0].as<float>();
  for (int64_t i = 0; i < args.outputs[0].size(); ++i) {
    out[i] = op.addend == Addend::none ? 0.0f : args.inputs.back().as<float>()[i];
  }
  int64_t row = 0;
  for (const auto& [pick, expert] : rows_of_pass(args, 1, args.inputs[0].dim(0))) {
    for (int64_t i = 0; i < width; ++i) {
      out[pick / op.top_k * width + i] += args.inputs[0].as<float>()[row * width + i];
    }
    ++row;
  }
}

void run(const GroupedMatMul& op, const KernelArgs& args) {
  const TensorView& weights = args.inputs[1];
  const int64_t k = args.inputs[0].dim(1), n = args.outputs[0].dim(1);
  const std::vector<int64_t> experts = experts_of_counts(args.inputs[2], weights.dim(0));
  for (int64_t row = 0; row < std::ssize(experts); ++row) {
    const float* w = weights.as<float>() + experts[static_cast<size_t>(row)] * k * n;
    for (int64_t j = 0; j < n; ++j) {
      double sum = op.addend == Addend::none ? 0.0f : args.inputs.back().as<float>()[row * n + j];
      for (int64_t i = 0; i < k; ++i) {
        sum += double{args.inputs[0].as<float>()[row * k + i]} *
               w[op.transpose_b ? j * k + i : i * n + j];
      }
      args.outputs[0].as<float>()[row * n + j] = rounded(sum);
    }
  }
}

void run(const GroupedMatMulGrad& op, const KernelArgs& args) {
  const int64_t k = args.inputs[0].dim(1), n = args.inputs[1].dim(1);
  const std::vector<int64_t> experts = experts_of_counts(args.inputs[2], op.num_experts);
  for (int64_t at = 0; at < args.outputs[0].size(); ++at) {
    const int64_t e = at / (k * n), i = at / n % k, j = at % n;
    double sum = op.addend == Addend::none ? 0.0f : args.inputs.back().as<float>()[at];
    for (int64_t row = 0; row < std::ssize(experts); ++row) {
      if (experts[static_cast<size_t>(row)] != e) continue;
      sum +=
          double{args.inputs[0].as<float>()[row * k + i]} * args.inputs[1].as<float>()[row * n + j];
    }
    args.outputs[0].as<float>()[at] = rounded(sum);
  }
}

void run(const UpdateRouterBias& op, const KernelArgs& args) {
  const int64_t num_experts = args.inputs[0].size();
  const float* load = args.inputs[1].as<float>();
  double mean = 0;
  for (int64_t e = 0; e < num_experts; ++e) mean += load[e] / static_cast<double>(num_experts);
  if (!std::isfinite(*args.inputs[2].as<float>())) return;
  for (int64_t e = 0; e < num_experts; ++e) {
    const double less = mean == 0 ? 0 : std::max(-1.0, (mean - load[e]) / mean);
    float& bias = args.outputs[0].as<float>()[e];
    bias = rounded(bias + less * op.rate);
  }
}

}  // namespace caravan::reference
