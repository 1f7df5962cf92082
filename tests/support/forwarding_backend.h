// A backend that hands every call on to the CPU's: tests override what they change.
#pragma once

#include "runtime/backend.h"

namespace caravan {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(const CpuOptions& options) : cpu_(make_cpu_backend(options)) {}
  std::string description() const override { return cpu_->description(); }
  std::unique_ptr<DeviceMemory> reserve(int64_t bytes) override { return cpu_->reserve(bytes); }
  void copy_in(void* device, const void* host, int64_t bytes) override {
    cpu_->copy_in(device, host, bytes);
  }
  void copy_out(void* host, const void* device, int64_t bytes) override {
    cpu_->copy_out(host, device, bytes);
  }
  void copy_out_settled(void* host, const void* device, int64_t bytes) override {
    cpu_->copy_out_settled(host, device, bytes);
  }
  void fill(void* device, uint32_t word, int64_t bytes) override {
    cpu_->fill(device, word, bytes);
  }
  int64_t workspace_bytes(const Op& op, std::span<const TensorSpec> inputs,
                          std::span<const TensorSpec> outputs) const override {
    return cpu_->workspace_bytes(op, inputs, outputs);
  }
  void run(const Op& op, const KernelArgs& args, Stream stream) override {
    cpu_->run(op, args, stream);
  }
  void wait_for_communication(int64_t count) override { cpu_->wait_for_communication(count); }
  int64_t communication_count() const override { return cpu_->communication_count(); }
  void synchronize() override { cpu_->synchronize(); }

 private:
  std::unique_ptr<Backend> cpu_;
};

}  // namespace caravan
