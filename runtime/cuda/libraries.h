// The libraries of NVIDIA that the CUDA backend calls, opened on demand (on_demand.h).
#pragma once

#include <string>

namespace caravan::cuda {

// What is wrong, "" when nothing is. May be called again.
std::string open_cublas_lt();
std::string open_cudnn();

}  // namespace caravan::cuda
