// Times saving and loading against plain files of the same bytes, without training.
//   bench_checkpoint FOLDER CONFIG [key=value ...]       also under mpirun
// Rounds alternate: a checkpoint through the writer of a run, then the same bytes by write() and
// fsync() from as many processes; a checked load of all tensors, then the same files by read().
// Prints one JSON line on rank 0: bytes, and the seconds of each round. Loads are from a warm page
// cache on both sides.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <map>

#include "bench/bench_main.h"
#include "checkpoint/crc32c.h"
#include "checkpoint/reader.h"
#include "checkpoint/snapshot.h"
#include "checkpoint/writer.h"
#include "launch/pipeline.h"
#include "launch/run_state.h"
#include "parallel/mpi_session.h"
#include "runtime/backend.h"

namespace caravan {
namespace {

constexpr int kRounds = 7;
constexpr int64_t kPlainChunkBytes = int64_t{1} << 20;

[[noreturn]] void fail(const std::string& path) {
  throw checkpoint_error(absl::StrFormat("%s: %s", path, std::strerror(errno)));
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags)
      : path_(path), value_(::open(path.c_str(), flags, 0666)) {
    if (value_ < 0) fail(path_);
  }
  ~Descriptor() { ::close(value_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  void write(std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t done = ::write(value_, bytes.data(), bytes.size());
      if (done < 0) fail(path_);
      bytes = bytes.subspan(static_cast<size_t>(done));
    }
  }
  size_t read(std::span<std::byte> bytes) const {
    const ssize_t done = ::read(value_, bytes.data(), bytes.size());
    if (done < 0) fail(path_);
    return static_cast<size_t>(done);
  }
  void sync() const {
    if (::fsync(value_) != 0) fail(path_);
  }

 private:
  std::string path_;
  int value_;
};

class CheckpointBench {
 public:
  CheckpointBench(const std::string& folder, const Config& config, MpiSession& mpi)
      : folder_(folder),
        world_(mpi.world()),
        backend_(make_cpu_backend({.num_threads = 1, .overlap = false})),
        mesh_(make_mesh(config, world_.size()).with_rank(world_.rank())),
        plan_(plan_run(config, mesh_.with_rank(0), workspace_rule(DeviceKind::cpu, 1))),
        arena_(*backend_, plan_.layout, 0),
        shards_(shards_to_save(plan_, mesh_, arena_)) {
    Progress progress;
    initialize_parameters(plan_, mesh_, *backend_, arena_, 1, 1, progress);
  }

  nlohmann::json run() {
    for (int round = 0; round <= kRounds; ++round) {
      is_warm_up_ = round == 0;
      save(round);
      write_plainly();
      compute_checksums();
    }
    std::vector<std::byte> memory(static_cast<size_t>(checkpoint_bytes(plan_)));
    for (int round = 0; round <= kRounds; ++round) {
      is_warm_up_ = round == 0;
      load(memory);
      read_plainly(memory);
    }
    nlohmann::json result = seconds_;
    result["bytes"] = checkpoint_bytes(plan_);
    result["ranks"] = world_.size();
    return result;
  }

 private:
  // Calls action on all ranks at a time; the seconds until the last one is done.
  template <typename Action>
  double time(Action action) {
    world_.barrier();
    const auto start = std::chrono::steady_clock::now();
    action();
    world_.barrier();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  void note(const char* what, double seconds) {
    if (!is_warm_up_) seconds_[what].push_back(seconds);
  }

  // As checkpoint/async_save.cpp does, with nobody who changes the tensors meanwhile.
  void save(int round) {
    SaveRequest request{
        .folder = folder_ + "/checkpoints", .shards = shards_, .save_total_limit = 1};
    request.header.run_id = "bench";
    request.header.step = round + 1;
    Snapshot snapshot(request.shards, {});
    request.source = [&](size_t shard, int64_t first_byte, std::span<std::byte> out) {
      snapshot.read(shard, first_byte, out);
    };
    std::string report;
    const double write = time([&] { report = write_rank(request, world_.rank(), world_.size()); });
    const std::vector<std::string> reports = gather_strings(world_, report);
    const double commit = time([&] {
      if (world_.rank() == 0) path_ = commit_save(request, reports).path;
    });
    path_ = gather_strings(world_, path_)[0];
    note("save_write", write);
    note("save", write + commit);  // with the manifest; the checkpoint before it is deleted
  }

  void write_plainly() {
    const std::string path = absl::StrFormat("%s/plain-%d", folder_, world_.rank());
    ::unlink(path.c_str());
    note("plain_write", time([&] {
           const Descriptor file(path, O_WRONLY | O_CREAT | O_EXCL);
           for (const TensorShard& shard : shards_) {
             std::span left(static_cast<const std::byte*>(shard.data),
                            static_cast<size_t>(size_bytes(shard)));
             while (!left.empty()) {
               const size_t bytes = std::min<size_t>(left.size(), kPlainChunkBytes);
               file.write(left.first(bytes));
               left = left.subspan(bytes);
             }
           }
           file.sync();
         }));
    ::unlink(path.c_str());
  }

  // The writer's pieces lie in the cache when their checksums are made: what those add is the
  // difference between copying all pieces with and without them.
  void compute_checksums() {
    const double with = time([&] { copy_pieces(true); });
    const double without = time([&] { copy_pieces(false); });
    note("checksum", with - without);
  }

  void copy_pieces(bool has_checksums) {
    for (const TensorShard& shard : shards_) {
      const auto* bytes = static_cast<const std::byte*>(shard.data);
      for (int64_t at = 0; at < size_bytes(shard); at += kPieceBytes) {
        const auto count = static_cast<size_t>(std::min(kPieceBytes, size_bytes(shard) - at));
        std::memcpy(piece_.data(), bytes + at, count);
        if (has_checksums) checksum_ = crc32c(piece_.data(), count, checksum_);
      }
    }
  }

  void load(std::span<std::byte> memory) {
    note("load", time([&] {
           CheckpointReader reader(path_);
           std::byte* next = memory.data();
           for (const TensorRecord& tensor : reader.manifest().tensors) {
             reader.read({.name = tensor.name,
                          .dtype = tensor.dtype,
                          .global_shape = tensor.shape,
                          .offset = Shape(tensor.shape.size(), 0),
                          .extent = tensor.shape,
                          .data = next});
             next += num_elements(tensor.shape) * size_bytes(tensor.dtype);
           }
           check(next == memory.data() + memory.size(), "the checkpoint has other tensors");
         }));
  }

  // Into memory of the same size: the bytes are to be somewhere. Files have frames beside tensors.
  void read_plainly(std::span<std::byte> memory) {
    note("plain_read", time([&] {
           std::span<std::byte> left = memory;
           for (int rank = 0; rank < world_.size(); ++rank) {
             const std::string path =
                 absl::StrFormat("%s/rank-%05d-of-%05d.h5", path_, rank, world_.size());
             const Descriptor file(path, O_RDONLY);
             while (true) {
               if (left.empty()) left = memory;
               const size_t bytes =
                   file.read(left.first(std::min<size_t>(left.size(), kPlainChunkBytes)));
               if (bytes == 0) break;
               left = left.subspan(bytes);
             }
           }
         }));
  }

  std::string folder_;
  Communicator& world_;
  std::unique_ptr<Backend> backend_;
  Mesh mesh_;
  RunPlan plan_;
  Arena arena_;
  std::vector<TensorShard> shards_;
  std::string path_;  // of the newest checkpoint
  bool is_warm_up_ = true;
  std::vector<std::byte> piece_ = std::vector<std::byte>(kPieceBytes);
  uint32_t checksum_ = 0;
  std::map<std::string, std::vector<double>> seconds_;
};

void time_checkpoints(std::vector<std::string> arguments) {
  if (arguments.size() < 2) {
    throw config_error("usage: bench_checkpoint FOLDER CONFIG [key=value ...]");
  }
  const std::string folder = arguments[0];
  arguments.erase(arguments.begin());
  MpiSession mpi;
  const nlohmann::json result = CheckpointBench(folder, load_bench_config(arguments), mpi).run();
  if (mpi.world().rank() == 0) std::cout << result << std::endl;
  mpi.finish();
}

}  // namespace
}  // namespace caravan

int main(int argc, char** argv) {
  return caravan::run_bench("bench_checkpoint", argc, argv, caravan::time_checkpoints);
}
