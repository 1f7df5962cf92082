// NCCL on one device: a group of one rank, which is all that one device allows. Skipped in builds
// without NCCL, and by main.cpp where there is no device.
#include <gtest/gtest.h>

#include "parallel/nccl_communicator.h"
#include "runtime/cuda/cuda.h"
#include "runtime/error.h"
#include "tests/runtime/cuda/device_buffers.h"

namespace caravan {
namespace {

TEST(Nccl, DoesWhatEveryCommunicatorDoes) {
  if (nccl_version().empty()) GTEST_SKIP() << "skipped: this build has no NCCL";
  const auto backend = make_cuda_backend({});
  for (const CommunicatorCheck& check : communicator_checks()) {
    if (!runs_on_one_thread(check)) continue;
    SCOPED_TRACE(check.name);
    EXPECT_NO_THROW({
      const auto group = make_device_buffers(
          make_nccl_communicator(make_self_communicator(),
                                 {.stream = backend->stream_handle(Stream::communication)}),
          *backend);
      check.run(*group);
    });
  }
}

// Sums and gathers become part of a recording.
TEST(Nccl, IsRecorded) {
  if (nccl_version().empty()) GTEST_SKIP() << "skipped: this build has no NCCL";
  const auto backend = make_cuda_backend({});
  const auto memory = backend->reserve(4096);
  const auto group = make_nccl_communicator(
      make_self_communicator(), {.stream = backend->stream_handle(Stream::communication),
                                 .memory = memory->data(),
                                 .memory_bytes = memory->bytes()});
  backend->set_health_check([&] { group->check_peers(); });
  auto* floats = reinterpret_cast<float*>(memory->data());
  const std::vector<TensorView> sum = {{floats, {4}}};
  const std::vector<TensorView> part = {{floats, {4}}}, whole = {{floats + 16, {4}}};
  const Op all_reduce = AllReduce{Axis::dp}, all_gather = AllGather{Axis::dp, 0};
  const KernelArgs sums{.inputs = sum, .outputs = sum, .communicator = group.get()};
  const KernelArgs gathers{.inputs = part, .outputs = whole, .communicator = group.get()};
  const auto issue = [&] {
    backend->run(all_reduce, sums, Stream::communication);
    backend->run(all_gather, gathers, Stream::communication);
    backend->wait_for_communication(backend->communication_count());
  };
  issue();
  backend->synchronize();
  const auto recording = backend->record(issue);
  for (const float value : {1.0f, 2.0f}) {
    const std::vector<float> in(4, value);
    std::vector<float> out(4);
    backend->copy_in(floats, in.data(), 16);
    recording->launch();
    backend->synchronize();
    backend->copy_out(out.data(), floats + 16, 16);
    EXPECT_EQ(out, in);
  }
}

}  // namespace
}  // namespace caravan
