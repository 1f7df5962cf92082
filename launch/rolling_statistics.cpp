#include "launch/rolling_statistics.h"

#include <cmath>
#include <numeric>

namespace caravan {
namespace {

std::optional<double> z_score(const std::vector<double>& window, double value) {
  const auto count = static_cast<double>(window.size());
  const double mean = std::accumulate(window.begin(), window.end(), 0.0) / count;
  double squares = 0;
  for (const double other : window) squares += (other - mean) * (other - mean);
  const double deviation = std::sqrt(squares / count);
  if (!(deviation > 0)) return std::nullopt;
  return (value - mean) / deviation;
}

}  // namespace

RollingStatistics::RollingStatistics(const std::vector<double>& values) : RollingStatistics() {
  for (const double value : values) add(value);
}

std::optional<double> RollingStatistics::add(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  std::optional<double> z;
  if (values_.size() == kWindow) {
    z = z_score(values_, value);
    values_.erase(values_.begin());
  }
  values_.push_back(value);
  return z;
}

}  // namespace caravan
