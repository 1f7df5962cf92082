// The ops of the loss as their formulas say; see reference.h.
#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/cpu/reference.h"
#include "runtime/cpu/reference_matrix.h"

namespace caravan::reference {
namespace {

std::vector<double> logits_of(const Matrix& x, const Matrix& weight, int64_t t) {
  std::vector<double> logits(static_cast<size_t>(weight.rows));
  for (int64_t v = 0; v < weight.rows; ++v) {
    for (int64_t i = 0; i < x.columns; ++i) {
      logits[static_cast<size_t>(v)] += double{x(t, i)} * weight(v, i);
    }
  }
  return logits;
}

double log_sum_exp(const std::vector<double>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const double logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

}  // namespace

void run(const LinearCrossEntropy&, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const Matrix weight = matrix(args.inputs[1]);
  const int32_t* targets = args.inputs[2].as<int32_t>();
  double loss_sum = 0;
  double num_valid = 0;
  for (int64_t t = 0; t < x.rows; ++t) {
    const std::vector<double> logits = logits_of(x, weight, t);
    if (targets[t] == -1) continue;
    loss_sum += log_sum_exp(logits) - logits[static_cast<size_t>(targets[t])];
    num_valid += 1;
  }
  scalar(args.outputs[0]) = rounded(loss_sum);
  scalar(args.outputs[1]) = rounded(num_valid);
}

void run(const CrossEntropyPart&, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const Matrix weight = matrix(args.inputs[1]);
  float* const lse = args.outputs[0].as<float>();
  for (int64_t t = 0; t < x.rows; ++t) {
    const std::vector<double> logits = logits_of(x, weight, t);
    const int64_t target = args.inputs[2].as<int32_t>()[t] - args.inputs[1].begin(0);
    const bool is_here = target >= 0 && target < weight.rows;
    lse[t] = rounded(log_sum_exp(logits));
    lse[x.rows + t] = is_here ? rounded(logits[static_cast<size_t>(target)]) : 0.0f;
  }
}

void run(const MergeCrossEntropy&, const KernelArgs& args) {
  const float* const parts = args.inputs[0].as<float>();
  const int32_t* targets = args.inputs[1].as<int32_t>();
  const int64_t num_tokens = args.inputs[1].size();
  double loss_sum = 0;
  double num_valid = 0;
  for (int64_t t = 0; t < num_tokens; ++t) {
    std::vector<double> part;
    double logit = 0;
    for (int64_t p = 0; p < args.inputs[0].dim(0); ++p) {
      part.push_back(parts[2 * p * num_tokens + t]);
      logit += parts[(2 * p + 1) * num_tokens + t];
    }
    const double lse = log_sum_exp(part);
    args.outputs[0].as<float>()[t] = rounded(lse);
    loss_sum += targets[t] == -1 ? 0.0 : lse - logit;
    num_valid += targets[t] == -1 ? 0.0 : 1.0;
  }
  scalar(args.outputs[1]) = rounded(loss_sum);
  scalar(args.outputs[2]) = rounded(num_valid);
}

void run(const CrossEntropyPartGrad&, const KernelArgs& args) {
  const Matrix x = matrix(args.inputs[0]);
  const Matrix weight = matrix(args.inputs[1]);
  const Matrix dx = matrix(args.outputs[0]);
  std::vector<double> dweight(static_cast<size_t>(weight.rows * weight.columns));
  for (int64_t t = 0; t < x.rows; ++t) {
    const std::vector<double> logits = logits_of(x, weight, t);
    const int32_t target = args.inputs[2].as<int32_t>()[t];
    const double dloss = target == -1 ? 0.0 : scalar(args.inputs[4]);
    std::vector<double> dx_row(static_cast<size_t>(x.columns));
    for (int64_t v = 0; v < weight.rows; ++v) {
      const double hit = target == args.inputs[1].begin(0) + v ? 1.0 : 0.0;
      const double lse = args.inputs[3].as<float>()[t];
      const double dlogit = dloss * (std::exp(logits[static_cast<size_t>(v)] - lse) - hit);
      for (int64_t i = 0; i < x.columns; ++i) {
        dx_row[static_cast<size_t>(i)] += dlogit * weight(v, i);
        dweight[static_cast<size_t>(v * x.columns + i)] += dlogit * x(t, i);
      }
    }
    std::transform(dx_row.begin(), dx_row.end(), &dx(t, 0), rounded);
  }
  std::transform(dweight.begin(), dweight.end(), args.outputs[1].as<float>(), rounded);
}

void run(const LinearCrossEntropyGrad&, const KernelArgs& args) {
  run(LinearCrossEntropy{}, {args.inputs, args.outputs});
  const Matrix x = matrix(args.inputs[0]);
  const Matrix weight = matrix(args.inputs[1]);
  const int32_t* targets = args.inputs[2].as<int32_t>();
  const double dloss = scalar(args.inputs[3]);
  const Matrix dx = matrix(args.outputs[2]);
  std::vector<double> dweight(static_cast<size_t>(weight.rows * weight.columns));
  for (int64_t t = 0; t < x.rows; ++t) {
    const std::vector<double> logits = logits_of(x, weight, t);
    const double lse = log_sum_exp(logits);
    std::vector<double> dx_row(static_cast<size_t>(x.columns));
    for (int64_t v = 0; v < weight.rows && targets[t] != -1; ++v) {
      const double hit = targets[t] == v ? 1.0 : 0.0;
      const double dlogit = dloss * (std::exp(logits[static_cast<size_t>(v)] - lse) - hit);
      for (int64_t i = 0; i < x.columns; ++i) {
        dx_row[static_cast<size_t>(i)] += dlogit * weight(v, i);
        dweight[static_cast<size_t>(v * x.columns + i)] += dlogit * x(t, i);
      }
    }
    std::transform(dx_row.begin(), dx_row.end(), &dx(t, 0), rounded);
  }
  std::transform(dweight.begin(), dweight.end(), args.outputs[3].as<float>(), rounded);
}

}  // namespace caravan::reference
