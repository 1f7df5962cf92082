// Heartbeats over MPI. No call in here waits: a send is begun, and looked after later; a message is
// received only when it is there.
#include <mpi.h>

#include <vector>

#include "parallel/heartbeat.h"
#include "parallel/mpi_communicator.h"

namespace caravan {
namespace {

constexpr int kHeartbeatTag = 2;

class MpiHeartbeat final : public Heartbeat {
 public:
  MpiHeartbeat();
  ~MpiHeartbeat() override;
  MpiHeartbeat(const MpiHeartbeat&) = delete;
  MpiHeartbeat& operator=(const MpiHeartbeat&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(outgoing_.size()); }
  bool send(const Beat& beat, int to) override;
  bool flush() override;
  std::optional<Received> receive() override;

 private:
  struct Outgoing {
    Beat beat;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  static bool is_done(MPI_Request& request);
  void begin_to_receive();

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  std::vector<Outgoing> outgoing_;  // by peer
  Received incoming_;
  MPI_Request request_ = MPI_REQUEST_NULL;  // of incoming_
};

MpiHeartbeat::MpiHeartbeat() {
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm_), "MPI_Comm_dup");
  MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  int size = 0;
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &size);
  outgoing_.resize(static_cast<size_t>(size));
}

// What never arrived is left to MPI_Finalize: waiting for it could take for ever.
MpiHeartbeat::~MpiHeartbeat() {
  for (Outgoing& one : outgoing_) {
    if (!is_done(one.request)) MPI_Request_free(&one.request);
  }
}

// A request that failed is done as well: its beat is lost, which the peer's silence will tell.
bool MpiHeartbeat::is_done(MPI_Request& request) {
  int done = 0;
  if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) {
    request = MPI_REQUEST_NULL;
    return true;
  }
  return done != 0;
}

bool MpiHeartbeat::send(const Beat& beat, int to) {
  Outgoing& out = outgoing_[static_cast<size_t>(to)];
  if (!is_done(out.request)) return false;
  out.beat = beat;
  const int status =
      MPI_Isend(&out.beat, sizeof(Beat), MPI_BYTE, to, kHeartbeatTag, comm_, &out.request);
  if (status != MPI_SUCCESS) out.request = MPI_REQUEST_NULL;
  return status == MPI_SUCCESS;
}

bool MpiHeartbeat::flush() {
  bool all_done = true;
  for (Outgoing& one : outgoing_) all_done = is_done(one.request) && all_done;
  return all_done;
}

void MpiHeartbeat::begin_to_receive() {
  int is_there = 0;
  MPI_Status status;
  if (MPI_Iprobe(MPI_ANY_SOURCE, kHeartbeatTag, comm_, &is_there, &status) != MPI_SUCCESS) return;
  if (is_there == 0) return;
  incoming_.from = status.MPI_SOURCE;
  if (MPI_Irecv(&incoming_.beat, sizeof(Beat), MPI_BYTE, status.MPI_SOURCE, kHeartbeatTag, comm_,
                &request_) != MPI_SUCCESS) {
    request_ = MPI_REQUEST_NULL;
  }
}

std::optional<Heartbeat::Received> MpiHeartbeat::receive() {
  if (request_ == MPI_REQUEST_NULL) begin_to_receive();
  if (request_ == MPI_REQUEST_NULL) return {};
  int done = 0;
  const int status = MPI_Test(&request_, &done, MPI_STATUS_IGNORE);
  if (status != MPI_SUCCESS) request_ = MPI_REQUEST_NULL;
  if (status != MPI_SUCCESS || done == 0) return {};
  return incoming_;
}

}  // namespace

std::unique_ptr<Heartbeat> make_mpi_heartbeat() { return std::make_unique<MpiHeartbeat>(); }

}  // namespace caravan
