// Communicators for device memory: what every communicator must do (tests/parallel), with buffers
// that lie on the device; and collectives of the backend over them.
#include <gtest/gtest.h>

#include <cstring>

#include "parallel/host_staged_communicator.h"
#include "runtime/cuda/cuda.h"
#include "runtime/error.h"
#include "tests/parallel/communicator_checks.h"
#include "tests/runtime/cuda/device_buffers.h"
#include "tests/support/virtual_ranks.h"

namespace caravan {
namespace {

class HostStaged : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, HostStaged, testing::Values(1, 2, 3));

// In rounds of few bytes, too.
TEST_P(HostStaged, DoesWhatEveryCommunicatorDoes) {
  for (const int64_t bytes : {int64_t{65536}, kHostStagedBytes}) {
    for (const CommunicatorCheck& check : communicator_checks()) {
      if (!runs_on_one_thread(check)) continue;
      SCOPED_TRACE(check.name);
      EXPECT_NO_THROW(run_ranks(GetParam(), [&](Communicator& world) {
        const auto backend = make_cuda_backend({});
        const auto group = make_device_buffers(
            make_host_staged_communicator(world.split(0, world.rank()), *backend, bytes), *backend);
        check.run(*group);
      }));
    }
  }
}

// A wait of some ten milliseconds asks.
TEST(CudaWaits, EndWhenAPeerIsLost) {
  const auto backend = make_cuda_backend({});
  constexpr int64_t kBytes = int64_t{32} << 20;
  const auto memory = backend->reserve(kBytes);
  backend->set_health_check([] { throw Error(ExitCode::peer_lost, "rank 1 is gone"); });
  const bool is_emulated = backend->description().find("emulated") != std::string::npos;
  const int num_fills = is_emulated ? 1 : 10'000;
  for (int i = 0; i < num_fills; ++i) backend->fill(memory->data(), 1, kBytes);
  EXPECT_THROW(backend->synchronize(), Error);
  for (int i = 0; i < num_fills; ++i) backend->fill(memory->data(), 1, kBytes);
  uint32_t word = 0;
  EXPECT_THROW(backend->copy_out(&word, memory->data(), 4), Error);
  backend->set_health_check({});
  backend->synchronize();
}

}  // namespace
}  // namespace caravan
