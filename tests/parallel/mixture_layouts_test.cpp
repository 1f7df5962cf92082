// A tiny Llama 4 with experts on every mesh of 2 and 4 virtual ranks, with and without sequence
// parallelism, with every ZeRO stage: the same training steps as on one rank.
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

struct Layout {
  std::array<int, kNumAxes> mesh;  // dp, ep, tp
  bool sequence_parallel = false;
  int zero = 0;
};

std::string label(const Layout& layout) {
  return absl::StrFormat("dp%d_ep%d_tp%d%s_zero%d", layout.mesh[0], layout.mesh[1], layout.mesh[2],
                         layout.sequence_parallel ? "_sequence" : "", layout.zero);
}

void PrintTo(const Layout& layout, std::ostream* out) { *out << label(layout); }

// ZeRO does nothing where dp is 1.
std::vector<Layout> layouts_of(int num_ranks) {
  std::vector<Layout> layouts;
  for (int dp = 1; dp <= num_ranks; ++dp) {
    for (int ep = 1; dp * ep <= num_ranks; ++ep) {
      const int tp = num_ranks / (dp * ep);
      if (dp * ep * tp != num_ranks) continue;
      for (const bool sequence_parallel : {false, true}) {
        if (sequence_parallel && tp == 1) continue;
        for (int zero = 0; zero <= (dp > 1 ? 3 : 0); ++zero) {
          layouts.push_back({{dp, ep, tp}, sequence_parallel, zero});
        }
      }
    }
  }
  return layouts;
}

std::vector<Layout> all_layouts() {
  std::vector<Layout> layouts = layouts_of(2);
  for (const Layout& layout : layouts_of(4)) layouts.push_back(layout);
  return layouts;
}

// Experts in the second of two layers, with less room than one pass needs.
TrainingRun mixture_run(const Layout& layout) {
  TrainingRun run = tiny_llama4_run();
  run.model.vocab_size = 52;
  run.model.moe_layers.reset();
  run.model.num_local_experts = 4;
  run.model.num_experts_per_tok = 2;
  run.model.interleave_moe_layer_step = 2;
  run.options.slots = {.sequence_len = run.sequence_len, .per_sequence = run.sequence_len};
  run.options.aux_loss_coef = 0.01f;
  run.options.z_loss_coef = 0.001f;
  run.options.sequence_parallel = layout.sequence_parallel;
  run.accumulation_steps = 2;
  run.mesh.sizes = layout.mesh;
  run.optimizer.zero_stage = layout.zero;
  return run;
}

TrainingResult train_mixture(const Layout& layout) {
  const TrainingRun run = mixture_run(layout);
  return train(run, {random_batch(run, 1), random_batch(run, 2)});
}

class MixtureLayoutTest : public testing::TestWithParam<Layout> {};

TEST_P(MixtureLayoutTest, EqualsOneRank) {
  static const TrainingResult expected = train_mixture({{1, 1, 1}});
  EXPECT_LT(relative_difference(train_mixture(GetParam()), expected), 2e-5);
}

INSTANTIATE_TEST_SUITE_P(All, MixtureLayoutTest, testing::ValuesIn(all_layouts()),
                         [](const auto& info) { return label(info.param); });

}  // namespace
}  // namespace caravan
