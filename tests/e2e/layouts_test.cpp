// One run on many meshes, by the real program: the same losses as one process, and checkpoints that
// any other mesh goes on from.
#include <gtest/gtest.h>

#include "checkpoint/directory.h"
#include "tests/e2e/caravan_process.h"

namespace caravan {
namespace {

constexpr int kSteps = 20;
constexpr double kTolerance = 1e-5;  // relative, of losses: sums in another order

struct Layout {
  std::string name;
  int num_ranks = 0;            // 0: without mpirun
  std::string parallel = "{}";  // the section of the configuration
  bool has_experts = false;     // instead of MLPs
};
void PrintTo(const Layout& layout, std::ostream* out) { *out << layout.name; }

const Layout kOneProcess = {"one_process"};
const Layout kDp2 = {"dp2", 2, "{dp: 2}"};
const Layout kDp2Zero3 = {"dp2_zero3", 2, "{zero: 3}"};
const Layout kDp4Zero3 = {"dp4_zero3", 4, "{dp: auto, zero: 3, bucket_bytes: 16KiB}"};
const Layout kDp3Zero3 = {"dp3_zero3", 3,  // dims that do not divide, and ranks with nothing
                          "{zero: 3}"};
const Layout kTp2 = {"tp2", 2, "{tp: 2}"};
const Layout kTp2Sequence = {"tp2_sequence", 2, "{tp: 2, sequence_parallel: true}"};
const Layout kTp4 = {"tp4_sequence", 4,  // two ranks share each key-value head
                     "{dp: 1, tp: auto, sequence_parallel: true}"};
const Layout kDp2Tp2Zero1 = {"dp2_tp2_zero1", 4, "{dp: 2, tp: 2, zero: 1}"};
const Layout kDp2Tp2Zero2 = {"dp2_tp2_zero2_sequence", 4,
                             "{tp: 2, zero: 2, sequence_parallel: true}"};
const Layout kDp2Tp2Zero3 = {"dp2_tp2_zero3_sequence", 4,
                             "{tp: 2, zero: 3, sequence_parallel: true}"};

const Layout kExperts = {"experts", 0, "{}", true};
const Layout kEp2 = {"experts_ep2", 2, "{ep: 2, zero: 1}", true};
const Layout kEp4 = {"experts_ep4", 4, "{dp: 1, ep: auto}", true};
const Layout kDp2Ep2 = {"experts_dp2_ep2_zero3", 4, "{ep: 2, zero: 3}", true};
const Layout kDp4Experts = {"experts_dp4_zero3", 4, "{zero: 3}", true};
const Layout kTp2Ep2 = {"experts_tp2_ep2_sequence", 4, "{ep: 2, tp: 2, sequence_parallel: true}",
                        true};

std::vector<Layout> layouts() {
  return {kDp2, kDp2Zero3,    kDp4Zero3,    kDp3Zero3,    kTp2,
          kTp4, kTp2Sequence, kDp2Tp2Zero1, kDp2Tp2Zero2, kDp2Tp2Zero3,
          kEp2, kEp4,         kDp2Ep2,      kDp4Experts,  kTp2Ep2};
}

struct Change {
  Layout from, to;
};
void PrintTo(const Change& change, std::ostream* out) {
  *out << change.from.name << " to " << change.to.name;
}

std::vector<Change> changes() {
  return {{kOneProcess, kDp2Zero3},
          {kDp2Zero3, kOneProcess},
          {kDp2Zero3, kDp4Zero3},
          {kDp3Zero3, kTp2},
          {kTp2, kDp4Zero3},
          {kDp4Zero3, kDp2Tp2Zero3},
          {kDp2Tp2Zero3, kTp2Sequence},
          {kTp4, kDp3Zero3},
          {kExperts, kDp2Ep2},
          {kDp2Ep2, kTp2Ep2},
          {kTp2Ep2, kEp4},
          {kEp4, kDp4Experts}};
}

std::string name_of(const Change& change) { return change.from.name + "_to_" + change.to.name; }

// 24 sequences a step divide among 1 to 4 ranks.
class Layouts : public testing::Test {
 protected:
  std::string run(const Layout& layout, const std::string& name, int steps,
                  const std::string& more = "") {
    // With few slots, so that most rows of experts go through in a second pass.
    const std::string experts =
        " model.num_local_experts=4 model.num_experts_per_tok=2 moe.slots=0.6";
    const std::string options = "'parallel=" + layout.parallel +
                                "' train.max_steps=" + std::to_string(steps) +
                                (layout.has_experts ? experts : "") + " " + more;
    const ProcessResult result = bench_.train(name, options, layout.num_ranks);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return result.output;
  }

  static const Layout& alone(bool has_experts) { return has_experts ? kExperts : kOneProcess; }

  std::string checkpoint(const std::string& name, int step) const {
    return bench_.path(name) + "/checkpoints/" + step_folder_name(step);
  }

  static void expect_close(const std::vector<double>& found, const std::vector<double>& expected,
                           size_t first) {
    ASSERT_EQ(first + found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_NEAR(found[i] / expected[first + i], 1, kTolerance) << "step " << first + i + 1;
    }
  }

  Workbench bench_;
};

class EachLayout : public Layouts, public testing::WithParamInterface<Layout> {};

TEST_P(EachLayout, HasTheLossesOfOneProcess) {
  const std::string batch = "train.global_batch_size=24";
  run(alone(GetParam().has_experts), "alone", kSteps, batch);
  run(GetParam(), "together", kSteps, batch);
  const std::vector<double> alone = bench_.losses("alone");
  ASSERT_EQ(alone.size(), size_t{kSteps});
  EXPECT_LT(alone.back(), 0.9 * alone.front());
  expect_close(bench_.losses("together"), alone, 0);
}

INSTANTIATE_TEST_SUITE_P(All, EachLayout, testing::ValuesIn(layouts()),
                         [](const auto& info) { return info.param.name; });

class EachChange : public Layouts, public testing::WithParamInterface<Change> {};

// A step that is skipped changes no tensor: its checkpoint is what was loaded, in another layout.
TEST_P(EachChange, GoesOnWithTheSameTensors) {
  constexpr int kSaved = 3, kEnd = 6;
  const std::string batch = "train.global_batch_size=24 ";
  run(alone(GetParam().to.has_experts), "alone", kEnd, batch);
  run(GetParam().from, "before", kSaved, batch);
  const std::string saved = checkpoint("before", kSaved);
  const std::string from = batch + "checkpoint.resume_from_checkpoint=" + saved;
  run(GetParam().to, "after", kEnd, from);
  expect_close(bench_.losses("after"), bench_.losses("alone"), kSaved);

  const ProcessResult verified = run_caravan("ckpt verify " + bench_.path("after"));
  EXPECT_EQ(verified.exit_code, 0) << verified.output;
  const std::string output = run(GetParam().to, "skips", kSaved + 1, from + " --fault nan@4:0");
  EXPECT_NE(output.find("the update was skipped"), std::string::npos) << output;
  const ProcessResult diff =
      run_caravan("ckpt diff " + saved + " " + checkpoint("skips", kSaved + 1));
  EXPECT_EQ(diff.exit_code, 0) << diff.output;
  EXPECT_NE(diff.output.find("identical: all "), std::string::npos) << diff.output;
}

INSTANTIATE_TEST_SUITE_P(All, EachChange, testing::ValuesIn(changes()),
                         [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace caravan
