// Signs of life between ranks: small messages of fixed size that never make anybody wait. What
// they mean is judged elsewhere (launch/judge.h).
#pragma once

#include <memory>
#include <optional>

#include "runtime/progress.h"

namespace caravan {

struct Beat {
  enum class Life : uint8_t {
    running,
    leaving,  // has nothing left to do, and waits for the others
    over,     // from rank 0: all are leaving
  };
  Position position;
  Life life = Life::running;
};

// One thread of its own calls send, receive and flush.
class Heartbeat {
 public:
  virtual ~Heartbeat() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // False when the beat before it has not gone yet: then this one is dropped.
  virtual bool send(const Beat& beat, int to) = 0;
  // True when there are no beats of this rank left that have not gone.
  virtual bool flush() = 0;

  struct Received {
    int from = 0;
    Beat beat;
  };
  virtual std::optional<Received> receive() = 0;  // in the order of each sender
};

// Over all processes of the job, with a context of its own. Collective over them; an MPI of several
// threads has been started (mpi_session.h). Errors of MPI are no beats, nothing else: whoever
// judges hears of it as silence. Destroyed before MPI ends.
std::unique_ptr<Heartbeat> make_mpi_heartbeat();

}  // namespace caravan
