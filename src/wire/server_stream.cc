#include "wire/server_stream.h"

namespace tessera::wire {

void ServerStream::end(const Status& status) {
  MutexLock lock(end_mutex_);
  if (!ending_) {
    ending_ = true;
    reason_ = status;
  }
  close_queue();
  if (done_ || finished_) return;
  if (writing())
    context_->TryCancel();  // OnWriteDone comes with false, then the stream finishes
  else
    finish_once();
}

void ServerStream::end_after(std::string last, const Status& status) {
  const Push pushed = push(std::move(last));
  {
    MutexLock lock(end_mutex_);
    if (ending_) return;
    ending_ = true;
    reason_ = status;
    if (pushed == Push::kQueued) {
      if (!writing()) finish_once();  // else on_idle() does
      return;
    }
  }
  end(status);
}

void ServerStream::abort() {
  MutexLock lock(end_mutex_);
  if (!done_) context_->TryCancel();
}

void ServerStream::OnReadDone(bool ok) {
  if (!ok) {  // the peer has closed its side, or is gone
    end(unavailable("the peer is gone"));
    return;
  }
  Status status = deliver_bundle(received(), [this](Frame frame) { return on_frame(std::move(frame)); });
  if (status.ok())
    start_reading();
  else
    end(status);
}

void ServerStream::on_idle() {
  MutexLock lock(end_mutex_);
  if (ending_) finish_once();
}

void ServerStream::finish_once() {
  if (finished_) return;
  finished_ = true;
  close_queue();
  Finish(reason_.code() == Code::kUnavailable ? grpc::Status::OK : to_grpc(reason_));
}

void ServerStream::OnDone() {
  Status reason;
  {
    MutexLock lock(end_mutex_);
    done_ = true;
    reason = reason_;
  }
  on_end(reason.ok() ? unavailable("the stream has ended") : reason);
  const auto last = std::move(self_);
}

}  // namespace tessera::wire
