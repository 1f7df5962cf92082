// What grows in a long run: nothing. Resident memory and open files of every rank, over 2000 steps
// and 40 checkpoints.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/e2e/job.h"
#include "tests/e2e/run_record.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr int kSteps = 2000;

// Of the samples in one part of the run: at most so many bytes, at least so many open files. (A
// save has some files open for a moment; a file that is never closed raises the least.)
struct Held {
  int64_t resident_bytes = 0;
  int64_t num_files = INT64_MAX;
  int num_samples = 0;
};

// Adds what a process holds now, unless it is just gone.
void sample(pid_t process, Held& held) {
  const std::string place = "/proc/" + std::to_string(process);
  std::ifstream statm(place + "/statm");
  int64_t total_pages = 0, resident_pages = 0;
  if (!(statm >> total_pages >> resident_pages)) return;
  int64_t num_files = 0;
  std::error_code error;
  for (fs::directory_iterator entry(place + "/fd", error), end; !error && entry != end;
       entry.increment(error)) {
    ++num_files;
  }
  held.resident_bytes = std::max(held.resident_bytes, resident_pages * sysconf(_SC_PAGESIZE));
  held.num_files = std::min(held.num_files, num_files);
  ++held.num_samples;
}

// Steps 200 to 600 have eight saves, and so whatever a save needs; the rest is compared with them.
void expect_no_growth(int num_ranks, const std::string& options) {
  const Workbench bench;
  Job job(bench, "long",
          "checkpoint.save_steps=50 log.logging_steps=1000 train.max_steps=" +
              std::to_string(kSteps) + " " + options,
          num_ranks);
  ASSERT_TRUE(job.wait_until([&] { return num_step_lines(bench.path("long")) >= 200; }));
  const std::vector<pid_t> ranks = job.ranks();
  ASSERT_EQ(ranks.size(), static_cast<size_t>(std::max(num_ranks, 1)));
  std::vector<Held> before(ranks.size()), after(ranks.size());
  EXPECT_FALSE(job.wait_until([&] {
    const size_t step = num_step_lines(bench.path("long"));
    if (step == kSteps) return false;  // it leaves, and makes files shorter before it does
    for (size_t i = 0; i < ranks.size(); ++i) sample(ranks[i], step <= 600 ? before[i] : after[i]);
    return false;
  }));
  const ProcessResult result = job.result();
  ASSERT_EQ(result.exit_code, 0) << result.output;
  for (size_t i = 0; i < ranks.size(); ++i) {
    SCOPED_TRACE("rank " + std::to_string(i));
    EXPECT_GT(before[i].num_samples, 5);
    EXPECT_GT(after[i].num_samples, 20);
    EXPECT_LE(after[i].resident_bytes, before[i].resident_bytes * 101 / 100 + (256 << 10));
    EXPECT_LE(after[i].num_files, before[i].num_files);
    std::cout << before[i].resident_bytes << " -> " << after[i].resident_bytes << " bytes, "
              << before[i].num_files << " -> " << after[i].num_files << " files\n";
  }
}

TEST(LongRun, OneProcessDoesNotGrow) { expect_no_growth(0, "train.global_batch_size=2"); }

TEST(LongRun, TwoRanksDoNotGrow) {
  expect_no_growth(2, "train.global_batch_size=4 parallel.zero=1 model.num_hidden_layers=1");
}

}  // namespace
}  // namespace caravan
