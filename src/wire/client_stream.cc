#include "wire/client_stream.h"

namespace tessera::wire {

std::shared_ptr<ClientStream> ClientStream::start(std::shared_ptr<grpc::Channel> channel,
                                                  const std::string& method, std::string first,
                                                  const LinkOptions& options, Callbacks callbacks) {
  auto stream = std::make_shared<ClientStream>(std::move(channel), options, std::move(callbacks));
  stream->self_ = stream;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(stream->channel_);
  stub.PrepareBidiStreamingCall(&stream->context_, method, grpc::StubOptions(), stream.get());
  stream->AddHold();  // writes come from outside reactions; released when the reads have ended
  stream->push(std::move(first));
  stream->start_reading();
  stream->StartCall();
  return stream;
}

void ClientStream::cancel(const Status& reason) {
  {
    MutexLock lock(reason_mutex_);
    if (reason_.ok()) reason_ = reason;
  }
  close_queue();
  context_.TryCancel();
}

void ClientStream::OnReadDone(bool ok) {
  if (ok) {
    const Status status =
        deliver_bundle(received(), [this](Frame frame) { return callbacks_.on_frame(std::move(frame)); });
    if (!status.ok()) cancel(status);
    start_reading();  // after a cancellation too: it ends with false, and with it the stream
    return;
  }
  close_queue();
  RemoveHold();
}

void ClientStream::OnDone(const grpc::Status& status) {
  Status reason;
  {
    MutexLock lock(reason_mutex_);
    reason = reason_;
  }
  // Nothing of this object is used after the call: its last owner may be gone by then.
  const auto on_end = std::move(callbacks_.on_end);
  on_end(reason.ok() ? from_grpc(status) : reason, std::move(self_));
}

}  // namespace tessera::wire
