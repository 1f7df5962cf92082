// What backends that do not record say.
#include "runtime/backend.h"

#include "runtime/error.h"

namespace caravan {

std::unique_ptr<Recording> Backend::record(const std::function<void()>&) {
  throw internal_error("[" + description() + "] does not record");
}

}  // namespace caravan
