// Faults on request: what may be asked for, when they happen. Those that end the process are in
// tests/e2e/watchdog_test.cpp.
#include "launch/fault.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/error.h"

namespace caravan {
namespace {

using Kind = FaultRequest::Kind;

TEST(Fault, IsKindStepAndRank) {
  const FaultRequest request = parse_fault("nan-gradient@17:2", 4);
  EXPECT_EQ(request.kind, Kind::nan_gradient);
  EXPECT_EQ(request.step, 17);
  EXPECT_EQ(request.rank, 2);
  EXPECT_EQ(parse_fault("stop@1:0", 1).kind, Kind::stop);
}

TEST(Fault, AnythingElseIsAMistakeOfTheUser) {
  for (const char* text : {"", "stop", "stop@1", "stop:1@1", "stop@1:0:0", "stop@0:0", "stop@x:0",
                           "stop@1:4", "stop@1:-1", "halt@1:0", "stop@@1:0"}) {
    try {
      parse_fault(text, 4);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::config) << text;
      EXPECT_NE(std::string(error.what()).find("KIND@STEP:RANK"), std::string::npos);
    }
  }
}

// A step of made-up nodes.
struct Steps {
  Steps() : backend(make_cpu_backend({.num_threads = 1, .overlap = false})) {
    progress.enter(Phase::computing);
  }
  void run(const auto& fault, const Op& op) {
    Node node;
    node.op = op;
    fault(*backend, node, std::vector(4, output));
  }

  std::unique_ptr<Backend> backend;
  Progress progress;
  float value = 1;
  TensorView output{.data = &value, .shape = {}, .dtype = DType::f32};
};

TEST(Fault, NanIsWrittenOnceIntoTheLossOfItsStep) {
  Steps steps;
  const auto fault = make_fault({.kind = Kind::nan, .step = 2, .rank = 0}, steps.progress);
  steps.progress.begin_step(1);
  steps.run(fault, LinearCrossEntropy{});
  EXPECT_EQ(steps.value, 1);
  steps.progress.begin_step(2);
  steps.run(fault, Add{});
  EXPECT_EQ(steps.value, 1);
  steps.progress.enter(Phase::evaluating);
  steps.run(fault, LinearCrossEntropy{});
  EXPECT_EQ(steps.value, 1);
  steps.progress.enter(Phase::computing);
  steps.run(fault, LinearCrossEntropy{});
  EXPECT_TRUE(std::isnan(steps.value));
  steps.value = 1;
  steps.run(fault, LinearCrossEntropy{});
  EXPECT_EQ(steps.value, 1) << "the second micro-batch";
}

TEST(Fault, NanOfAGradient) {
  Steps steps;
  const auto fault = make_fault({.kind = Kind::nan_gradient, .step = 1, .rank = 0}, steps.progress);
  steps.progress.begin_step(1);
  steps.run(fault, LinearCrossEntropy{});
  EXPECT_EQ(steps.value, 1);
  steps.run(fault, LinearCrossEntropyGrad{});
  EXPECT_TRUE(std::isnan(steps.value));
}

// Where ranks share the vocabulary, in what the others of them hear of.
TEST(Fault, NanOfALossThatIsShared) {
  Steps steps;
  steps.progress.begin_step(1);
  const auto nan = make_fault({.kind = Kind::nan, .step = 1, .rank = 0}, steps.progress);
  steps.run(nan, MergeCrossEntropy{});
  EXPECT_EQ(steps.value, 1);
  steps.run(nan, CrossEntropyPart{});
  EXPECT_TRUE(std::isnan(steps.value));
  steps.value = 1;
  const auto gradient =
      make_fault({.kind = Kind::nan_gradient, .step = 1, .rank = 0}, steps.progress);
  steps.run(gradient, CrossEntropyPart{});
  EXPECT_EQ(steps.value, 1);
  steps.run(gradient, CrossEntropyPartGrad{});
  EXPECT_TRUE(std::isnan(steps.value));
}

TEST(Fault, AnErrorIsThrown) {
  Steps steps;
  const auto fault = make_fault({.kind = Kind::error, .step = 1, .rank = 0}, steps.progress);
  steps.progress.begin_step(1);
  EXPECT_THROW(steps.run(fault, Add{}), Error);
}

}  // namespace
}  // namespace caravan
