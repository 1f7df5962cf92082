// A process that saves in a loop is killed at random moments: the newest commit always loads and is
// never older than what the process had reported as committed.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "checkpoint/directory.h"
#include "runtime/rng.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

// CARAVAN_SOAK=1: a minute or two instead of some seconds.
uint64_t num_kills() { return std::getenv("CARAVAN_SOAK") != nullptr ? 1000 : 150; }

// Saves steps after the newest one for ever; writes each committed step into `pipe`.
[[noreturn]] void save_for_ever(const std::string& folder, int pipe) {
  try {
    clean_temporaries(folder);
    for (int64_t step = find_latest(folder).step + 1;; ++step) {
      save_model(folder, small_model(), step, 2, 3);
      if (::write(pipe, &step, sizeof(step)) != sizeof(step)) _exit(2);
    }
  } catch (...) {
    _exit(3);
  }
}

// The last step that the child reported; -1 when none.
int64_t last_reported(int pipe) {
  int64_t step = -1, next = 0;
  while (::read(pipe, &next, sizeof(next)) == sizeof(next)) step = next;
  return step;
}

TEST(Kill, NewestCommitIsAlwaysValid) {
  const TemporaryFolder folder;
  const RandomStream random(9, RandomPurpose::test, 0);
  int64_t newest = -1;
  for (uint64_t kill = 0; kill < num_kills(); ++kill) {
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) save_for_ever(folder.path(), pipe[1]);
    ::close(pipe[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(random.bits(kill) % 100000));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << status;
    newest = std::max(newest, last_reported(pipe[0]));
    ::close(pipe[0]);
    const LatestCheckpoint latest = find_latest(folder.path());
    ASSERT_TRUE(latest.ignored.empty()) << latest.ignored.front();
    ASSERT_GE(latest.step, newest) << "a commit was lost at kill " << kill;
    if (latest.step < 0) continue;
    ASSERT_TRUE(loads_exactly(latest.path, small_model(), latest.step, 3));
  }
  EXPECT_GT(newest, static_cast<int64_t>(num_kills() / 10))
      << "too few saves for the test to mean anything";
}

}  // namespace
}  // namespace caravan::test
