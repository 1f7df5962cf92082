#include "tests/e2e/job.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <thread>

#include "tests/e2e/processes.h"

namespace caravan {
namespace {

using namespace std::chrono_literals;

}  // namespace

Job::Job(const Workbench& bench, const std::string& run, const std::string& overrides,
         int num_ranks)
    : argument_("output_dir=" + bench.path(run)),
      result_(std::async(std::launch::async,
                         [=, &bench] { return bench.train(run, overrides, num_ranks); })) {}

// More than once: it may only just be starting processes.
Job::~Job() {
  while (!is_over() || !is_gone_within(0)) {
    kill_all();
    std::this_thread::sleep_for(10ms);
  }
}

bool Job::is_over() const {
  return !result_.valid() || result_.wait_for(0s) == std::future_status::ready;
}

bool Job::wait_until(const std::function<bool()>& condition) const {
  return wait_for(condition, 60, [this] { return is_over(); });
}

ProcessResult Job::result() {
  if (result_.wait_for(120s) != std::future_status::ready) {
    ADD_FAILURE() << "the job does not end";
    kill_all();
  }
  return result_.get();
}

std::vector<pid_t> Job::all() const {
  return find_processes([this](const CommandLine& line) { return has_word(line, argument_); });
}

std::vector<pid_t> Job::all_of(const std::string& program) const {
  return find_processes([&](const CommandLine& line) {
    return has_word(line, argument_) && is_program(line, program);
  });
}

std::vector<pid_t> Job::ranks() const { return all_of("caravan"); }

std::vector<pid_t> Job::launcher() const { return all_of("mpirun"); }

bool Job::is_gone_within(double seconds) const {
  return wait_for([this] { return all().empty(); }, seconds);
}

void Job::kill_all() const { send_signal(all(), SIGKILL); }

}  // namespace caravan
