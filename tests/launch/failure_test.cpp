// error.json: one rank makes it, whole, whoever else tries at the same time.
#include "launch/failure.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/temporary_folder.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

class FailureFile : public testing::Test {
 protected:
  nlohmann::json read() const {
    std::ifstream file(failure_path(folder_));
    return nlohmann::json::parse(file);
  }

  static Failure failure(int rank) {
    return {.rank = rank,
            .host = "n1",
            .step = 17,
            .phase = "computing",
            .message = "a \"message\"",
            .exit_code = ExitCode::diverged};
  }

  TemporaryFolder temporary_;
  const std::string& folder_ = temporary_.path();
};

TEST_F(FailureFile, SaysWhatFailed) {
  EXPECT_FALSE(has_failure(folder_));
  EXPECT_EQ(claim_failure(folder_, failure(3)), Claim::first);
  const nlohmann::json object = read();
  EXPECT_EQ(object.at("rank"), 3);
  EXPECT_EQ(object.at("host"), "n1");
  EXPECT_EQ(object.at("step"), 17);
  EXPECT_EQ(object.at("phase"), "computing");
  EXPECT_EQ(object.at("message"), "a \"message\"");
  EXPECT_EQ(object.at("exit_code"), 5);
  EXPECT_GT(object.at("time").get<double>(), 1.7e9);
  EXPECT_EQ(object.size(), 7u);
}

TEST_F(FailureFile, TheFirstOneStays) {
  EXPECT_EQ(claim_failure(folder_, failure(1)), Claim::first);
  EXPECT_EQ(claim_failure(folder_, failure(2)), Claim::later);
  EXPECT_EQ(read().at("rank"), 1);
  remove_failure(folder_);
  EXPECT_EQ(claim_failure(folder_, failure(2)), Claim::first);
  EXPECT_EQ(read().at("rank"), 2);
}

TEST_F(FailureFile, NoFolderMeansThatNobodyKnows) {
  EXPECT_EQ(claim_failure(folder_ + "/gone", failure(1)), Claim::unwritable);
}

// No byte can be written, as on a full disk: still only one rank is the first.
TEST_F(FailureFile, AFullDiskHasOneFirstToo) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit nothing{.rlim_cur = 0, .rlim_max = 0};
    std::signal(SIGXFSZ, SIG_IGN);
    const bool is_full = setrlimit(RLIMIT_FSIZE, &nothing) == 0;
    const bool first = claim_failure(folder_, failure(1)) == Claim::first;
    const bool later = claim_failure(folder_, failure(2)) == Claim::later;
    _exit(is_full && first && later ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(has_failure(folder_));
  EXPECT_EQ(fs::file_size(failure_path(folder_)), 0u);
}

TEST_F(FailureFile, MessagesNeedNotBeText) {
  Failure odd = failure(0);
  odd.message = "cannot read '\xff\xfe'";
  EXPECT_EQ(claim_failure(folder_, odd), Claim::first);
  EXPECT_NE(read().at("message").get<std::string>().find("cannot read"), std::string::npos);
}

// Eight processes start together, many times: exactly one is the first, and leaves a whole file.
TEST_F(FailureFile, OneOfManyProcessesIsFirst) {
  for (int round = 0; round < 50; ++round) {
    remove_failure(folder_);
    int gate[2];
    ASSERT_EQ(pipe(gate), 0);
    std::vector<pid_t> children;
    for (int rank = 0; rank < 8; ++rank) {
      const pid_t child = fork();
      if (child == 0) {
        close(gate[1]);
        char nothing = 0;
        [[maybe_unused]] const ssize_t opened = ::read(gate[0], &nothing, 1);
        _exit(static_cast<int>(claim_failure(folder_, failure(rank))));
      }
      children.push_back(child);
    }
    close(gate[0]);
    close(gate[1]);  // all read the end of the pipe: off they go
    std::vector<int> first;
    for (int rank = 0; rank < 8; ++rank) {
      int status = 0;
      waitpid(children[static_cast<size_t>(rank)], &status, 0);
      ASSERT_TRUE(WIFEXITED(status));
      ASSERT_NE(WEXITSTATUS(status), static_cast<int>(Claim::unwritable));
      if (WEXITSTATUS(status) == static_cast<int>(Claim::first)) first.push_back(rank);
    }
    ASSERT_EQ(first.size(), 1u);
    EXPECT_EQ(read().at("rank"), first[0]);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
  }
}

TEST(DescribeError, CodesAndOneLine) {
  const auto describe = [](const auto& error) {
    return describe_error(std::make_exception_ptr(error));
  };
  EXPECT_EQ(describe(Error(ExitCode::data, "a\nb\n")).message, "a b");
  EXPECT_EQ(describe(Error(ExitCode::data, "a")).code, ExitCode::data);
  EXPECT_EQ(describe(std::bad_alloc()).code, ExitCode::internal);
  EXPECT_NE(describe(std::bad_alloc()).message.find("memory_limit"), std::string::npos);
  EXPECT_EQ(describe(std::runtime_error("x")).message, "internal: x");
}

}  // namespace
}  // namespace caravan
