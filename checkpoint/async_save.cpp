#include "checkpoint/async_save.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "runtime/error.h"

namespace caravan {
namespace {

using Clock = std::chrono::steady_clock;

template <typename T>
bool is_ready(const std::future<T>& future) {
  return future.valid() && future.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

}  // namespace

struct AsyncSave::Save {
  Save(SaveRequest&& wanted, std::span<std::byte> copy, const std::function<void()>& moved,
       const CopyOut& copy_out)
      : request(std::move(wanted)), snapshot(request.shards, copy, copy_out) {
    request.source = [this, moved](size_t shard, int64_t first_byte, std::span<std::byte> out) {
      moved();
      snapshot.read(shard, first_byte, out);
    };
  }
  Save(const Save&) = delete;
  Save& operator=(const Save&) = delete;
  // The writer's tasks use this object.
  ~Save() {
    snapshot.cancel();
    if (report.valid()) report.wait();
    if (commit.valid()) commit.wait();
  }

  SaveRequest request;
  Snapshot snapshot;
  Clock::time_point start = Clock::now();
  std::future<std::string> report;      // of this rank, until all are written
  bool commits = false;                 // all are written
  std::future<SavedCheckpoint> commit;  // rank 0
};

AsyncSave::AsyncSave(Communicator& world, WriterThread& writer, std::span<std::byte> copy,
                     std::function<void()> moved, CopyOut copy_out)
    : world_(world),
      writer_(writer),
      copy_(copy),
      moved_(std::move(moved)),
      copy_out_(std::move(copy_out)) {}

AsyncSave::~AsyncSave() = default;

void AsyncSave::begin(SaveRequest request) {
  check(!in_flight(), "a save begins while another is in flight");
  save_ = std::make_unique<Save>(std::move(request), copy_, moved_, copy_out_);
  save_->report = writer_.run([save = save_.get(), rank = world_.rank(), size = world_.size()] {
    std::string report = write_rank(save->request, rank, size);
    save->snapshot.close();  // also when it failed: nobody shall wait for it
    return report;
  });
}

void AsyncSave::detach() {
  if (in_flight()) save_->snapshot.detach();
}

SaveStage AsyncSave::stage() const {
  if (!in_flight()) return SaveStage::none;
  if (!save_->commits) return is_ready(save_->report) ? SaveStage::written : SaveStage::writing;
  return is_ready(save_->commit) ? SaveStage::committed : SaveStage::written;
}

std::optional<SaveResult> AsyncSave::advance(std::span<const SaveStage> stages) {
  if (!in_flight()) return std::nullopt;
  if (save_->commits) {
    if (stages[0] != SaveStage::committed) return std::nullopt;
    return result_of_commit();
  }
  const bool all_written =
      std::ranges::all_of(stages, [](SaveStage stage) { return stage == SaveStage::written; });
  if (!all_written) return std::nullopt;
  std::vector<std::string> reports = gather_strings(world_, save_->report.get());
  save_->commits = true;
  if (world_.rank() == 0) {
    save_->commit = writer_.run([save = save_.get(), reports = std::move(reports)] {
      return commit_save(save->request, reports);
    });
  }
  return std::nullopt;
}

SaveResult AsyncSave::result_of_commit() {
  SaveResult result;
  std::string error;
  if (world_.rank() == 0) {
    try {
      result.saved = save_->commit.get();
    } catch (const std::exception& caught) {
      error = *caught.what() == '\0' ? "unknown error" : caught.what();
    }
  }
  result.error = gather_strings(world_, error)[0];
  result.saved.path = checkpoint_path(save_->request);
  result.seconds = std::chrono::duration<double>(Clock::now() - save_->start).count();
  save_.reset();
  return result;
}

// Each rank waits for its own file alone before it waits for the others: who watches them sees
// which of them is late.
SaveResult AsyncSave::finish() {
  check(in_flight(), "no save is in flight");
  std::vector<SaveStage> stages(static_cast<size_t>(world_.size()));
  while (true) {
    if (save_->report.valid()) save_->report.wait();
    if (save_->commit.valid()) save_->commit.wait();
    const SaveStage mine = stage();
    world_.all_gather(&mine, stages.data(), sizeof(mine));
    if (std::optional<SaveResult> result = advance(stages)) return *std::move(result);
  }
}

}  // namespace caravan
