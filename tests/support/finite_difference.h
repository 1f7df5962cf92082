// Derivatives by finite differences, to hold gradients against.
#pragma once

#include <functional>

#include "tests/support/program_runner.h"

namespace caravan {

// A scalar function of one tensor; the others are captured.
using ScalarFunction = std::function<double(const HostTensor&)>;

// d/ds f(x + s * direction) at s = 0, by a central difference of fourth order. Its step is large,
// 1/32 (x shall be of size 1): f comes from float32 kernels, whose rounding the step divides.
double directional_derivative(const ScalarFunction& f, const HostTensor& x,
                              const HostTensor& direction);

double dot(const HostTensor& a, const HostTensor& b);

// The largest |finite difference - <gradient, direction>| over some dense random directions and
// over single elements, each relative to the size that such a product has on average.
double gradient_error(const ScalarFunction& f, const HostTensor& x, const HostTensor& gradient);

}  // namespace caravan
