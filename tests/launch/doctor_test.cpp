// The doctor names what people ask for in reports; processors are read as Linux writes them.
#include "launch/doctor.h"

#include <fstream>

#include "launch/machine.h"
#include "tests/launch/messages.h"

namespace caravan {
namespace {

TEST(Doctor, NamesVersionsAndLimits) {
  const ScopedVariable variable("OMPI_MCA_caravan_test", "1");
  const std::string text = to_string(examine_machine());
  for (const char* fact : {"MPI ", "HDF5 ", "yaml-cpp ", "CPU kernels ", "SentencePiece ", "GCC ",
                           "vector features ", "cgroup memory limit ", "memory_limit: auto ",
                           "/dev/shm ", "ulimit -l ", "$OMPI_MCA_caravan_test"}) {
    EXPECT_NE(text.find(fact), std::string::npos) << fact << "\n" << text;
  }
}

TEST(Doctor, GivesTheFixWithEveryFinding) {
  const DoctorReport report{.facts = {{"MPI", "1"}}, .findings = {{"no disk", "buy one"}}};
  EXPECT_EQ(to_string(report), "MPI                  1\n! no disk\n  fix: buy one\n");
}

TEST(Machine, ReadsQuotasOfBothVersions) {
  const TemporaryFolder root;
  EXPECT_EQ(processor_quota(root.path()), 0);
  std::filesystem::create_directories(root / "sys/fs/cgroup/cpu");
  std::ofstream(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us") << "50000\n";
  std::ofstream(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us") << "100000\n";
  EXPECT_EQ(processor_quota(root.path()), 0.5);
  EXPECT_EQ(usable_processors(root.path()), 1);
  std::ofstream(root / "sys/fs/cgroup/cpu.max") << "max 100000\n";
  std::ofstream(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us") << "-1\n";
  EXPECT_EQ(processor_quota(root.path()), 0);
  std::ofstream(root / "sys/fs/cgroup/cpu.max") << "150000 100000\n";
  EXPECT_EQ(processor_quota(root.path()), 1.5);
}

TEST(Machine, ReadsTheProcessor) {
  const TemporaryFolder root;
  std::filesystem::create_directories(root / "proc");
  std::ofstream(root / "proc/cpuinfo")
      << "processor\t: 0\nmodel name\t: Fast CPU\nflags\t\t: fpu sse4_2 avx avx2 avx512f\n";
  EXPECT_EQ(processor_name(root.path()), "Fast CPU");
  EXPECT_EQ(processor_vector_features(root.path()),
            (std::vector<std::string>{"sse4_2", "avx", "avx2", "avx512f"}));
}

}  // namespace
}  // namespace caravan
