#include "launch/ckpt_command.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

constexpr int64_t kNow = 1700000000 + 3 * 3600;  // three hours after what header_of_step() says

std::string listing(const std::string& folder) {
  std::ostringstream out;
  list_checkpoints(folder, kNow, out);
  return out.str();
}

class CkptCommand : public testing::Test {
 protected:
  CkptCommand() {
    save_model(run_.path() + "/checkpoints", small_model(), 1000, 2);
    newest_ = save_model(run_.path() + "/checkpoints", small_model(), 2000, 2).path;
  }
  TemporaryFolder run_;
  std::string newest_;
};

TEST_F(CkptCommand, ListsRunsFoldersAndSingleCheckpoints) {
  const std::string text = listing(run_.path());
  for (const char* part : {"1,000", "4,096,000", "2.5000", "3h", "dp=2 zero=1", "step-00002000"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_LT(text.find("step-00001000"), text.find("step-00002000"));
  EXPECT_EQ(listing(run_.path() + "/checkpoints/"), text);
  const std::string one = listing(newest_);
  EXPECT_NE(one.find("step-00002000"), std::string::npos) << one;
  EXPECT_EQ(one.find("step-00001000"), std::string::npos) << one;
}

TEST_F(CkptCommand, NamesUnusableOnesAndListsTheOthers) {
  std::filesystem::remove(newest_ + "/rank-00001-of-00002.h5");
  const std::string text = listing(run_.path());
  EXPECT_NE(text.find("unusable: " + newest_), std::string::npos) << text;
  EXPECT_NE(text.find("1,000"), std::string::npos) << text;
}

TEST_F(CkptCommand, ShowsHeaderAndTensors) {
  std::ostringstream brief, full;
  show_checkpoint(newest_, false, brief);
  show_checkpoint(newest_, true, full);
  for (const char* part : {"8,192,000", "run-1", "c0ffee", "2023-11-14 22:13:20 UTC", "loss"}) {
    EXPECT_NE(brief.str().find(part), std::string::npos) << part << "\n" << brief.str();
  }
  EXPECT_EQ(brief.str().find("layers.0.attention.wq"), std::string::npos);
  EXPECT_NE(full.str().find("layers.0.attention.wq"), std::string::npos) << full.str();
  EXPECT_NE(full.str().find("[24,10]"), std::string::npos) << full.str();
}

TEST_F(CkptCommand, SubcommandsAndMistakes) {
  CLI::App app;
  add_ckpt_command(app);
  testing::internal::CaptureStdout();
  app.parse("ckpt show --tensors " + newest_);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("positions"), std::string::npos);
  const std::string missing = error_of([&] { app.parse("ckpt ls " + run_.path() + "/nope"); });
  EXPECT_NE(missing.find("/nope: no such folder"), std::string::npos) << missing;
  const std::string not_one = error_of([&] { app.parse("ckpt show " + run_.path()); });
  EXPECT_NE(not_one.find("not a checkpoint"), std::string::npos) << not_one;
}

}  // namespace
}  // namespace caravan::test
