#include "wire/channel.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/grpc_security_constants.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include "obs/log.h"

namespace tessera::wire {
namespace {

constexpr uint64_t kFramingBytes = 1024;  // a bundle's own prefix

// gRPC writes to stderr whatever a stranger's handshake does wrong: into our log, where a level silences it.
void adopt_grpc_log() {
  static const bool done = [] {
    gpr_set_log_function([](gpr_log_func_args* entry) {
      obs::log_debug("grpc", entry->message, {{"file", entry->file}, {"line", entry->line}});
    });
    return true;
  }();
  (void)done;
}

int milliseconds(std::chrono::milliseconds time) {
  return static_cast<int>(time.count());
}

// For gRPC, once before the first handshake and at each of them.
grpc_ssl_certificate_config_reload_status fetch_identity(void* server_identity,
                                                         grpc_ssl_server_certificate_config** config) {
  const auto identity = static_cast<ServerIdentity*>(server_identity)->changed();
  if (identity == nullptr) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair{identity->key_pem.c_str(), identity->chain_pem.c_str()};
  *config = grpc_ssl_server_certificate_config_create(identity->ca_pem.c_str(), &pair, 1);
  return *config == nullptr ? GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_FAIL
                            : GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

// grpc::SslServerCredentials shows one certificate for ever; gRPC's C interface asks for it.
class RenewableCredentials final : public grpc::ServerCredentials {
 public:
  RenewableCredentials(ServerIdentity& identity, grpc_ssl_client_certificate_request_type client)
      : credentials_(grpc_ssl_server_credentials_create_with_options(
            grpc_ssl_server_credentials_create_options_using_config_fetcher(client, fetch_identity,
                                                                            &identity))) {}
  ~RenewableCredentials() override { grpc_server_credentials_release(credentials_); }
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }
  grpc_server_credentials* const credentials_;
};

}  // namespace

grpc::Status to_grpc(const Status& status) {
  using grpc::StatusCode;
  StatusCode code = StatusCode::INTERNAL;
  switch (status.code()) {
    case Code::kOk:
      return grpc::Status::OK;
    case Code::kInvalidArgument:
      code = StatusCode::INVALID_ARGUMENT;
      break;
    case Code::kNotFound:
      code = StatusCode::NOT_FOUND;
      break;
    case Code::kCorrupt:
      code = StatusCode::DATA_LOSS;
      break;
    case Code::kUnsupported:
      code = StatusCode::FAILED_PRECONDITION;
      break;
    case Code::kResourceExhausted:
      code = StatusCode::RESOURCE_EXHAUSTED;
      break;
    case Code::kUnavailable:
      code = StatusCode::UNAVAILABLE;
      break;
    case Code::kDeadlineExceeded:
      code = StatusCode::DEADLINE_EXCEEDED;
      break;
    case Code::kCancelled:
      code = StatusCode::CANCELLED;
      break;
    case Code::kPermissionDenied:
      code = StatusCode::PERMISSION_DENIED;
      break;
    case Code::kIo:
    case Code::kInternal:
      break;
  }
  return {code, status.message()};
}

Status from_grpc(const grpc::Status& status) {
  using grpc::StatusCode;
  const std::string message = status.error_message().substr(0, kMaxText);
  switch (status.error_code()) {
    case StatusCode::OK:
      return unavailable("the peer ended the stream");
    case StatusCode::INVALID_ARGUMENT:
      return invalid_argument(message);
    case StatusCode::NOT_FOUND:
      return not_found(message);
    case StatusCode::DATA_LOSS:
      return corrupt(message);
    case StatusCode::FAILED_PRECONDITION:
    case StatusCode::UNIMPLEMENTED:
      return unsupported(message);
    case StatusCode::RESOURCE_EXHAUSTED:
      return resource_exhausted(message);
    case StatusCode::DEADLINE_EXCEEDED:
      return deadline_exceeded(message);
    case StatusCode::PERMISSION_DENIED:
    case StatusCode::UNAUTHENTICATED:
      return {Code::kPermissionDenied, message};
    case StatusCode::INTERNAL:
      return internal_error(message);
    default:
      return unavailable(message.empty() ? "the connection is lost" : message);
  }
}

std::shared_ptr<grpc::Channel> make_channel(const Address& address, const std::string& ca_pem,
                                            const Identity* identity, const std::string& expected_name,
                                            const LinkOptions& options) {
  adopt_grpc_log();
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = ca_pem;
  if (identity != nullptr) {
    tls.pem_private_key = identity->key_pem;
    tls.pem_cert_chain = identity->chain_pem;
  }
  grpc::ChannelArguments arguments;
  arguments.SetSslTargetNameOverride(expected_name);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes + kFramingBytes));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, milliseconds(options.keepalive_time));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, milliseconds(options.keepalive_timeout));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetString(GRPC_ARG_OPTIMIZATION_TARGET, "latency");
  return grpc::CreateCustomChannel(address.text(), grpc::SslCredentials(tls), arguments);
}

std::shared_ptr<const Identity> ServerIdentity::changed() {
  auto now = identity_.get();
  MutexLock lock(mutex_);
  return std::exchange(given_, now) == now ? nullptr : now;
}

Result<std::unique_ptr<grpc::Server>> start_server(const std::string& listen, ServerIdentity& identity,
                                                   ClientCertificate client, const LinkOptions& options,
                                                   std::initializer_list<grpc::Service*> services,
                                                   int* port) {
  adopt_grpc_log();
  TESSERA_ASSIGN_OR_RETURN(const Address address, parse_listen_address(listen));
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address.text(),
                           std::make_shared<RenewableCredentials>(
                               identity, client == ClientCertificate::kRequired
                                             ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                             : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY),
                           port);
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes + kFramingBytes));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, milliseconds(options.keepalive_time));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, milliseconds(options.keepalive_timeout));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port is an error, not a share
  builder.AddChannelArgument(GRPC_ARG_OPTIMIZATION_TARGET, "latency");
  for (grpc::Service* service : services) builder.RegisterService(service);
  *port = 0;
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || *port == 0)
    return unavailable("cannot listen on " + listen + ": the port is taken or not ours");
  return server;
}

void stop_server(std::unique_ptr<grpc::Server> server) {
  if (server == nullptr) return;
  server->Shutdown(std::chrono::system_clock::now());
  server->Wait();
}

std::string peer_name(const grpc::ServerContextBase& context) {
  const auto auth = context.auth_context();
  if (auth == nullptr || !auth->IsPeerAuthenticated()) return {};
  const auto names = auth->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
  return names.size() == 1 ? std::string(names[0].data(), names[0].size()) : std::string();
}

}  // namespace tessera::wire
