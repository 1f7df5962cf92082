#include "tests/support/finite_difference.h"

#include <algorithm>
#include <cmath>

namespace caravan {
namespace {

constexpr double kStep = 1.0 / 32;
constexpr int kNumDense = 3;
constexpr int64_t kNumElements = 8;

HostTensor moved(const HostTensor& x, const HostTensor& direction, double step) {
  HostTensor result = x;
  for (int64_t i = 0; i < x.size(); ++i) {
    result.set(i, static_cast<float>(x.at(i) + step * direction.at(i)));
  }
  return result;
}

double norm(const HostTensor& tensor) { return std::sqrt(dot(tensor, tensor)); }

}  // namespace

double dot(const HostTensor& a, const HostTensor& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.size(); ++i) sum += double{a.at(i)} * b.at(i);
  return sum;
}

double directional_derivative(const ScalarFunction& f, const HostTensor& x,
                              const HostTensor& direction) {
  const auto difference = [&](double step) {
    return f(moved(x, direction, step)) - f(moved(x, direction, -step));
  };
  return (8 * difference(kStep) - difference(2 * kStep)) / (12 * kStep);
}

double gradient_error(const ScalarFunction& f, const HostTensor& x, const HostTensor& gradient) {
  double worst = 0;
  const auto compare = [&](const HostTensor& direction) {
    const double expected = directional_derivative(f, x, direction);
    const double typical =
        norm(gradient) * norm(direction) / std::sqrt(std::max(1.0, static_cast<double>(x.size())));
    const double error = std::abs(dot(gradient, direction) - expected);
    worst = std::max(worst, error / std::max(std::abs(expected) + typical, 1e-6));
  };
  for (int i = 0; i < kNumDense; ++i) compare(normal_tensor(x.shape, 1000 + i));
  const int64_t stride = std::max<int64_t>(1, x.size() / kNumElements);
  for (int64_t i = 0; i < x.size(); i += stride) {
    HostTensor one = zeros(x.shape);
    one.set(i, 1.0f);
    compare(one);
  }
  return worst;
}

}  // namespace caravan
