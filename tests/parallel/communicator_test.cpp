// Communicators without MPI: the group of one and the virtual ranks, groups by mesh axis, and how
// processes are told from strangers. mpi_program.cpp is the same over MPI.
#include <gtest/gtest.h>

#include <map>
#include <ostream>
#include <string>
#include <tuple>

#include "parallel/mpi_session.h"
#include "parallel/process_groups.h"
#include "parallel/rank_sum.h"
#include "tests/parallel/communicator_checks.h"
#include "tests/support/virtual_ranks.h"

namespace caravan {

// For the names of tests: without it they hold an address, which changes from run to run.
void PrintTo(const CommunicatorCheck& check, std::ostream* out) { *out << check.name; }

namespace {

// The message of the error that `action` throws; "" when it throws none.
template <typename Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

using Case = std::tuple<CommunicatorCheck, int>;  // 0 ranks: the self communicator
class CommunicatorChecks : public testing::TestWithParam<Case> {};

TEST_P(CommunicatorChecks, Hold) {
  const auto& [check, num_ranks] = GetParam();
  if (num_ranks == 0) {
    EXPECT_EQ(error_of([run = check.run] { run(*make_self_communicator()); }), "");
  } else {
    EXPECT_EQ(error_of([&, run = check.run, n = num_ranks] { run_ranks(n, run); }), "");
  }
}

INSTANTIATE_TEST_SUITE_P(All, CommunicatorChecks,
                         testing::Combine(testing::ValuesIn(communicator_checks().begin(),
                                                            communicator_checks().end()),
                                          testing::Values(0, 1, 2, 3, 4, 5)),
                         [](const testing::TestParamInfo<Case>& info) {
                           const int num_ranks = std::get<1>(info.param);
                           const std::string where =
                               num_ranks == 0 ? "self" : std::to_string(num_ranks) + "_ranks";
                           return std::get<0>(info.param).name + ("_" + where);
                         });

TEST(RankSum, Bf16RoundsOnceToNearestEven) {
  // 1 + 2^-9 + 2^-9 is 1 + 2^-8 in f32: halfway between 1 and 1 + 2^-7, and 1 is even. One more
  // 2^-9 is nearer to 1 + 2^-7. Rounding after every addition would stay at 1.
  const uint16_t one = 0x3f80;
  const uint16_t small = 0x3b00;  // 2^-9
  uint16_t result = 0;
  const std::array<const void*, 4> parts = {&one, &small, &small, &small};
  sum_in_rank_order(std::span(parts).first(3), &result, 1, DType::bf16);
  EXPECT_EQ(result, 0x3f80);
  sum_in_rank_order(parts, &result, 1, DType::bf16);
  EXPECT_EQ(result, 0x3f81);
}

TEST(RankSum, Bf16KeepsNanAndInfinity) {
  const uint16_t nan = 0x7fff;
  const uint16_t infinity = 0x7f80;
  const uint16_t minus_infinity = 0xff80;
  uint16_t result = 0;
  const auto sum = [&](const uint16_t& a, const uint16_t& b) {
    const std::array<const void*, 2> parts = {&a, &b};
    sum_in_rank_order(parts, &result, 1, DType::bf16);
    return result;
  };
  EXPECT_EQ(sum(infinity, infinity), infinity);
  EXPECT_GT(sum(nan, infinity) & 0x7fff, 0x7f80);
  EXPECT_GT(sum(infinity, minus_infinity) & 0x7fff, 0x7f80);
}

TEST(ProcessGroups, AxesOfACube) {
  const Mesh shape{{2, 2, 2}};
  run_ranks(8, [&](Communicator& world) {
    ProcessGroups groups = make_groups(world, shape.with_rank(world.rank()));
    check(groups.all->size() == 8 && groups.all->rank() == world.rank(), "all");
    // rank = dp * 4 + ep * 2 + tp: a group differs in one bit.
    for (const auto& [axis, bit] : {std::pair(Axis::dp, 4), {Axis::ep, 2}, {Axis::tp, 1}}) {
      std::array<int, 2> members{};
      const int rank = world.rank();
      groups.axis(axis).all_gather(&rank, members.data(), sizeof(rank));
      check(members == std::array{rank & ~bit, rank | bit}, "%s of rank %d is %d, %d",
            std::string(name(axis)), rank, members[0], members[1]);
    }
  });
}

TEST(ProcessGroups, UnevenAxes) {
  const Mesh shape{{3, 1, 2}};
  run_ranks(6, [&](Communicator& world) {
    ProcessGroups groups = make_groups(world, shape.with_rank(world.rank()));
    check(groups.axis(Axis::ep).size() == 1, "ep");
    check(groups.axis(Axis::dp).size() == 3 && groups.axis(Axis::dp).rank() == world.rank() / 2,
          "dp");
    check(groups.axis(Axis::tp).size() == 2 && groups.axis(Axis::tp).rank() == world.rank() % 2,
          "tp");
    for (const Axis axis : kAxes) communicator_checks()[0].run(groups.axis(axis));
  });
}

TEST(ProcessGroups, RefusesAnotherWorld) {
  const auto world = make_self_communicator();
  EXPECT_EQ(error_of([&] {
              make_groups(*world, Mesh{{2, 1, 1}});
            }),
            "rank 0 of 1 processes cannot be rank 0 of the mesh dp 2");
}

TEST(VirtualRanks, FirstExceptionEndsAllAndReachesTheCaller) {
  const auto failing = [](Communicator& group) {
    const auto half = group.split(group.rank() % 2, 0);
    if (group.rank() == 2) throw data_error("rank 2 stumbles");
    for (;;) half->barrier();  // ranks 1 and 3 have no failing peer in their half
  };
  EXPECT_EQ(error_of([&] { run_ranks(4, failing); }), "rank 2 stumbles");
}

TEST(VirtualRanks, WaitingForARankThatEndedIsAnError) {
  const auto leaving = [](Communicator& group) {
    if (group.rank() == 0) group.barrier();
  };
  EXPECT_EQ(error_of([&] { run_ranks(3, leaving); }),
            "rank 0 waits in 'barrier' for a rank that has ended");
  const auto silent = [](Communicator& group) {
    int value = 0;
    if (group.rank() == 1) group.recv(&value, sizeof(value), 0);
  };
  EXPECT_EQ(error_of([&] { run_ranks(2, silent); }),
            "rank 1 waits in 'recv' for a rank that has ended");
}

TEST(VirtualRanks, DifferentCallsAreAnError) {
  const auto disagree = [](Communicator& group) {
    std::array<float, 2> data{};
    group.all_reduce(data.data(), group.rank() == 0 ? 1 : 2, DType::f32);
  };
  EXPECT_EQ(error_of([&] { run_ranks(2, disagree); }),
            "ranks disagree: 'all_reduce' of 1 (0) and 'all_reduce' of 2 (0)");
}

TEST(VirtualRanks, BodyRunsOncePerRank) {
  std::array<int, 5> runs{};
  run_ranks(5, [&](Communicator& group) { ++runs[static_cast<size_t>(group.rank())]; });
  EXPECT_EQ(runs, (std::array{1, 1, 1, 1, 1}));
}

TEST(SelfCommunicator, HasNoPeers) {
  const auto self = make_self_communicator();
  int value = 0;
  EXPECT_THROW(self->send(&value, sizeof(value), 0), Error);
  EXPECT_THROW(self->recv(&value, sizeof(value), 0), Error);
  EXPECT_THROW(self->broadcast(&value, sizeof(value), 1), Error);
}

// What launched_by_mpi says in this environment.
bool launched_with(const std::map<std::string, std::string>& variables) {
  return launched_by_mpi([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(Launch, KnowsMpirunAndPmix) {
  EXPECT_FALSE(launched_with({}));
  EXPECT_TRUE(launched_with({{"OMPI_COMM_WORLD_SIZE", "2"}}));
  EXPECT_TRUE(launched_with({{"PMIX_RANK", "0"}, {"SLURM_STEP_NUM_TASKS", "8"}}));
}

TEST(Launch, BatchScriptOfALargeJobIsOneProcess) {
  EXPECT_FALSE(launched_with({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}}));
  EXPECT_FALSE(launched_with({{"SLURM_NTASKS", "8"}, {"SLURM_STEP_NUM_TASKS", "1"}}));
}

TEST(Launch, RefusesProcessesThatAreStrangers) {
  EXPECT_EQ(error_of([] {
              launched_with({{"SLURM_STEP_NUM_TASKS", "8"}});
            }),
            "srun started 8 processes that cannot find each other: start them with "
            "srun --mpi=pmix");
  EXPECT_EQ(error_of([] {
              launched_with({{"PMI_SIZE", "4"}});
            }),
            "4 processes were started by the launcher of another MPI: use Open MPI's mpirun or "
            "srun --mpi=pmix");
}

TEST(Launch, PlainStartIsAGroupOfOneWithoutMpi) {
  MpiSession session;
  EXPECT_EQ(session.world().size(), 1);
  EXPECT_EQ(session.local_rank(), 0);
  EXPECT_EQ(session.local_size(), 1);
  EXPECT_FALSE(session.host_name().empty());
  session.finish();
}

TEST(LaunchDeathTest, AbortEndsWithTheCode) {
  EXPECT_EXIT(MpiSession().abort(ExitCode::diverged), testing::ExitedWithCode(5), "");
}

}  // namespace
}  // namespace caravan
