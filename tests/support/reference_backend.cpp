#include "tests/support/reference_backend.h"

#include "runtime/cpu/reference.h"
#include "tests/support/forwarding_backend.h"

namespace caravan {
namespace {

class ReferenceBackend final : public ForwardingBackend {
 public:
  ReferenceBackend() : ForwardingBackend({.num_threads = 1, .overlap = false}) {}
  std::string description() const override { return "reference"; }
  int64_t workspace_bytes(const Op& op, std::span<const TensorSpec> inputs,
                          std::span<const TensorSpec> outputs) const override {
    return reference::is_specified(op) ? 0
                                       : ForwardingBackend::workspace_bytes(op, inputs, outputs);
  }
  void run(const Op& op, const KernelArgs& args, Stream stream) override {
    if (reference::is_specified(op))
      reference::run_any(op, args);
    else
      ForwardingBackend::run(op, args, stream);
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace caravan
