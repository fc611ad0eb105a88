#include "control/jobs.h"

#include <algorithm>

#include "base/sha256.h"

namespace tessera::control {
namespace {

using store::Blob;
using store::integer_at;
using store::Row;
using store::Rows;
using store::Statements;
using store::text_at;
using store::Value;

// One entry for each version of the schema; released ones never change. State: JobState. Webhook: 0 none,
// 1 to be delivered once the job has ended (webhook_due_ms > 0), 2 delivered, 3 given up. Indices are
// partial, so that what has ended costs the queue nothing.
const std::vector<std::string_view> kMigrations = {
    R"sql(
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  key TEXT NOT NULL,
  type TEXT NOT NULL,
  params TEXT NOT NULL,
  model TEXT NOT NULL,
  priority INTEGER NOT NULL,
  region TEXT NOT NULL,
  cross_region INTEGER NOT NULL,
  timeout_ms INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  idempotency_key TEXT,
  request_sha256 BLOB NOT NULL,
  webhook_url TEXT NOT NULL,
  webhook_secret TEXT NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  created_ms INTEGER NOT NULL,
  due_ms INTEGER NOT NULL,
  started_ms INTEGER NOT NULL DEFAULT 0,
  ended_ms INTEGER NOT NULL DEFAULT 0,
  owner TEXT NOT NULL DEFAULT '',
  epoch INTEGER NOT NULL DEFAULT 0,
  lease_ms INTEGER NOT NULL DEFAULT 0,
  ran_in TEXT NOT NULL DEFAULT '',
  result TEXT NOT NULL DEFAULT '',
  error TEXT NOT NULL DEFAULT '',
  webhook INTEGER NOT NULL DEFAULT 0,
  webhook_attempts INTEGER NOT NULL DEFAULT 0,
  webhook_due_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX jobs_once ON jobs (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_queued ON jobs (priority DESC, number) WHERE state = 0;
CREATE INDEX jobs_running ON jobs (owner, lease_ms) WHERE state = 1;
CREATE INDEX jobs_ended ON jobs (ended_ms) WHERE state >= 2;
CREATE INDEX jobs_of_tenant ON jobs (tenant, number);
CREATE INDEX jobs_to_tell ON jobs (webhook_due_ms) WHERE webhook = 1 AND webhook_due_ms > 0;
)sql",
};

constexpr const char* kColumns =
    "id, number, tenant, key, type, params, model, priority, region, cross_region, timeout_ms, max_attempts, "
    "idempotency_key, webhook_url, webhook_secret, state, attempts, created_ms, due_ms, started_ms, "
    "ended_ms, "
    "owner, epoch, lease_ms, ran_in, result, error";
constexpr size_t kColumnCount = 27;

constexpr int64_t kWebhookLease_ms = 60'000;
constexpr int kServiceSample = 50;

Job job_of(const Row& row) {
  Job job;
  size_t i = 0;
  const auto text = [&] { return text_at(row, i++); };
  const auto integer = [&] { return integer_at(row, i++); };
  job.id = text();
  job.number = integer();
  JobRequest& r = job.request;
  r.tenant = text();
  r.key = text();
  r.type = text();
  r.params = text();
  r.model = text();
  r.priority = integer();
  r.region = text();
  r.cross_region = integer() != 0;
  r.timeout_ms = integer();
  r.max_attempts = integer();
  r.idempotency_key = text();
  r.webhook_url = text();
  r.webhook_secret = text();
  job.state = static_cast<JobState>(std::clamp<int64_t>(integer(), 0, 4));
  job.attempts = integer();
  job.created_ms = integer();
  job.due_ms = integer();
  job.started_ms = integer();
  job.ended_ms = integer();
  job.owner = text();
  job.epoch = integer();
  job.lease_ms = integer();
  job.ran_in = text();
  job.result = text();
  job.error = text();
  return job;
}

std::vector<Job> jobs_of(const Rows& rows) {
  std::vector<Job> jobs;
  jobs.reserve(rows.rows.size());
  for (const Row& row : rows.rows) jobs.push_back(job_of(row));
  return jobs;
}

std::string returning() {
  return std::string(" RETURNING ") + kColumns;
}

// What an idempotency key stands for.
Blob request_sum(const JobRequest& r) {
  std::string all;
  for (const std::string& part :
       {r.type, r.params, std::to_string(r.priority), r.region, std::to_string(r.cross_region),
        std::to_string(r.timeout_ms), std::to_string(r.max_attempts), r.webhook_url})
    all += std::to_string(part.size()) + ":" + part;
  const Digest sum = sha256(as_bytes(all));
  return Blob(sum.begin(), sum.end());
}

Status no_job(const std::string& id) {
  return not_found("there is no job '" + id + "'");
}

Result<std::optional<Job>> look_up(Statements& sql, const std::string& id) {
  TESSERA_ASSIGN_OR_RETURN(const Rows found,
                           sql.execute("SELECT " + std::string(kColumns) + " FROM jobs WHERE id = $1", {id}));
  if (found.rows.empty()) return std::optional<Job>();
  return std::optional<Job>(job_of(found.rows[0]));
}

Result<Result<Job>> insert(Statements& sql, const Jobs::NewJob& job, int64_t now) {
  const JobRequest& r = job.request;
  const Blob sum = request_sum(r);
  TESSERA_ASSIGN_OR_RETURN(
      const Rows added,
      sql.execute(
          "INSERT INTO jobs (id, tenant, key, type, params, model, priority, region, cross_region, "
          "timeout_ms, "
          "max_attempts, idempotency_key, request_sha256, webhook_url, webhook_secret, webhook, "
          "created_ms, due_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, "
          "$15, $16, $17, $17) ON CONFLICT DO NOTHING RETURNING number",
          {job.id, r.tenant, r.key, r.type, r.params, r.model, r.priority, r.region, int64_t{r.cross_region},
           r.timeout_ms, r.max_attempts, r.idempotency_key.empty() ? Value() : Value(r.idempotency_key), sum,
           r.webhook_url, r.webhook_secret, int64_t{!r.webhook_url.empty()}, now}));
  if (!added.rows.empty()) {
    Job made;
    made.id = job.id;
    made.number = integer_at(added.rows[0], 0);
    made.request = r;
    made.created_ms = made.due_ms = now;
    return Result<Job>(std::move(made));
  }
  TESSERA_ASSIGN_OR_RETURN(
      const Rows before,
      sql.execute("SELECT " + std::string(kColumns) +
                      ", request_sha256 FROM jobs WHERE tenant = $1 AND idempotency_key = $2",
                  {r.tenant, r.idempotency_key}));
  if (before.rows.empty()) return internal_error("a job's id was drawn twice");
  if (store::blob_at(before.rows[0], kColumnCount) != sum)
    return Result<Job>(
        invalid_argument("the idempotency key '" + r.idempotency_key + "' was used for another request"));
  return Result<Job>(job_of(before.rows[0]));
}

// Whether the outcome counted.
Result<bool> finish_one(Statements& sql, const JobOutcome& outcome, int64_t now) {
  const std::string mine = " WHERE id = $1 AND owner = $2 AND epoch = $3 AND state = 1";
  const auto end = [&](JobState state) {
    return sql.execute(
        "UPDATE jobs SET state = $4, ended_ms = $5, webhook_due_ms = $5, " +
            std::string(state == JobState::kCompleted ? "result" : "error") + " = $6" + mine,
        {outcome.id, outcome.owner, outcome.epoch, static_cast<int64_t>(state), now, outcome.text});
  };
  TESSERA_ASSIGN_OR_RETURN(const std::optional<Job> job, look_up(sql, outcome.id));
  const bool held = job && job->owner == outcome.owner && job->epoch == outcome.epoch;
  if (!held) return false;
  if (job->state != JobState::kRunning) return job->state != JobState::kCancelled;  // said before
  const bool waited_too_long = now - job->created_ms > std::chrono::milliseconds(Jobs::kLongestWait).count();
  const auto again = [&](int64_t attempts, int64_t due_ms) {
    return sql
        .execute("UPDATE jobs SET state = 0, attempts = $4, due_ms = $5, error = $6" + mine,
                 {outcome.id, outcome.owner, outcome.epoch, attempts, due_ms, outcome.text})
        .status();
  };
  Status status;
  if (outcome.kind == JobOutcome::kGiveBack)
    status = again(job->attempts - 1, now);
  else if (outcome.kind == JobOutcome::kNoRoom && !waited_too_long)
    status = again(job->attempts - 1, now + Jobs::backoff(1).count());
  else if (outcome.kind == JobOutcome::kDone)
    status = end(JobState::kCompleted).status();
  else if (outcome.kind != JobOutcome::kFailed && job->attempts < job->request.max_attempts)
    status = again(job->attempts, now + Jobs::backoff(job->attempts).count());
  else
    status = end(JobState::kFailed).status();
  TESSERA_RETURN_IF_ERROR(status);
  return true;
}

}  // namespace

std::optional<JobState> parse_job_state(std::string_view name) {
  for (size_t i = 0; i < std::size(kJobStateNames); ++i)
    if (name == kJobStateNames[i]) return static_cast<JobState>(i);
  return std::nullopt;
}

std::chrono::milliseconds Jobs::backoff(int64_t failed) {
  constexpr int64_t kFirst_ms = 1000, kMost_ms = 60'000;
  return std::chrono::milliseconds(std::min(kMost_ms, kFirst_ms << std::clamp<int64_t>(failed - 1, 0, 10)));
}

Result<std::unique_ptr<Jobs>> Jobs::open(store::Database& database, const Clock& clock) {
  TESSERA_RETURN_IF_ERROR(store::migrate(database, "jobs", kMigrations));
  return std::unique_ptr<Jobs>(new Jobs(database, clock));
}

Result<std::vector<Result<Job>>> Jobs::create(const std::vector<NewJob>& jobs) {
  const int64_t now = clock_.unix_time_ms();
  std::vector<Result<Job>> made;
  TESSERA_RETURN_IF_ERROR(database_.transaction([&](Statements& sql) -> Status {
    for (const NewJob& job : jobs) {
      TESSERA_ASSIGN_OR_RETURN(Result<Job> one, insert(sql, job, now));
      made.push_back(std::move(one));
    }
    return {};
  }));
  return made;
}

Result<std::vector<Job>> Jobs::take(const Taker& taker, int most) {
  const int64_t now = clock_.unix_time_ms();
  std::vector<Job> taken;
  std::vector<Value> values = {
      taker.owner, taker.region, now, now + taker.lease.count(), now - taker.reach.count(), int64_t{most}};
  std::string models = "model = ''";
  for (const std::string& model : taker.models) {
    values.emplace_back(model);
    models += " OR model = $" + std::to_string(values.size());
  }
  TESSERA_RETURN_IF_ERROR(database_.transaction([&](Statements& sql) -> Status {
    TESSERA_ASSIGN_OR_RETURN(
        const Rows rows,
        sql.execute(
            "UPDATE jobs SET state = 1, owner = $1, ran_in = $2, epoch = epoch + 1, attempts = attempts + 1, "
            "started_ms = $3, lease_ms = $4 WHERE number IN (SELECT number FROM jobs WHERE state = 0 AND "
            "due_ms <= $3 AND (region = '' OR region = $2 OR (cross_region = 1 AND created_ms <= $5)) AND (" +
                models + ") ORDER BY priority DESC, number LIMIT $6)" + returning(),
            values));
    taken = jobs_of(rows);
    return {};
  }));
  std::sort(taken.begin(), taken.end(), [](const Job& a, const Job& b) {
    return a.request.priority != b.request.priority ? a.request.priority > b.request.priority
                                                    : a.number < b.number;
  });
  return taken;
}

Result<std::vector<std::string>> Jobs::prolong(const std::string& owner, std::chrono::milliseconds lease) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows,
      database_.execute("UPDATE jobs SET lease_ms = $2 WHERE owner = $1 AND state = 1 RETURNING id",
                        {owner, clock_.unix_time_ms() + lease.count()}));
  std::vector<std::string> ids;
  for (const Row& row : rows.rows) ids.push_back(text_at(row, 0));
  return ids;
}

Result<std::vector<bool>> Jobs::finish(const std::vector<JobOutcome>& outcomes) {
  const int64_t now = clock_.unix_time_ms();
  std::vector<bool> counted;
  TESSERA_RETURN_IF_ERROR(database_.transaction([&](Statements& sql) -> Status {
    for (const JobOutcome& outcome : outcomes) {
      TESSERA_ASSIGN_OR_RETURN(const bool one, finish_one(sql, outcome, now));
      counted.push_back(one);
    }
    return {};
  }));
  return counted;
}

Result<int64_t> Jobs::end_leases() {
  const int64_t now = clock_.unix_time_ms();
  // Without a transaction where there is nothing to do: this is asked every second.
  TESSERA_ASSIGN_OR_RETURN(
      const Rows late,
      database_.execute("SELECT count(*) FROM jobs WHERE state = 1 AND lease_ms < $1", {now}));
  if (integer_at(late.rows.at(0), 0) == 0) return int64_t{0};
  int64_t ended = 0;
  TESSERA_RETURN_IF_ERROR(database_.transaction([&](Statements& sql) -> Status {
    TESSERA_ASSIGN_OR_RETURN(
        const Rows rows,
        sql.execute("SELECT id, owner, epoch FROM jobs WHERE state = 1 AND lease_ms < $1", {now}));
    for (const Row& row : rows.rows) {
      JobOutcome outcome;
      outcome.id = text_at(row, 0);
      outcome.owner = text_at(row, 1);
      outcome.epoch = integer_at(row, 2);
      outcome.kind = JobOutcome::kTryAgain;
      outcome.text = "the gateway that ran it was lost";
      TESSERA_RETURN_IF_ERROR(finish_one(sql, outcome, now).status());
      ++ended;
    }
    return {};
  }));
  return ended;
}

Result<Job> Jobs::find(const std::string& id, const std::string& tenant) {
  TESSERA_ASSIGN_OR_RETURN(std::optional<Job> job, look_up(database_, id));
  if (!job || (!tenant.empty() && job->request.tenant != tenant)) return no_job(id);
  return std::move(*job);
}

Result<Job> Jobs::cancel(const std::string& id, const std::string& tenant) {
  const int64_t now = clock_.unix_time_ms();
  std::optional<Job> job;
  TESSERA_RETURN_IF_ERROR(database_.transaction([&](Statements& sql) -> Status {
    TESSERA_RETURN_IF_ERROR(sql.execute("UPDATE jobs SET state = 4, ended_ms = $3, webhook_due_ms = $3 "
                                        "WHERE id = $1 AND (tenant = $2 OR $2 = '') AND state <= 1",
                                        {id, tenant, now})
                                .status());
    TESSERA_ASSIGN_OR_RETURN(job, look_up(sql, id));
    return {};
  }));
  if (!job || (!tenant.empty() && job->request.tenant != tenant)) return no_job(id);
  return std::move(*job);
}

Result<std::vector<Job>> Jobs::list(const JobFilter& filter) {
  std::string where;
  std::vector<Value> values;
  const auto add = [&](const char* condition, Value value) {
    values.push_back(std::move(value));
    where +=
        (where.empty() ? " WHERE " : " AND ") + std::string(condition) + " $" + std::to_string(values.size());
  };
  if (!filter.tenant.empty()) add("tenant =", filter.tenant);
  if (filter.state) add("state =", static_cast<int64_t>(*filter.state));
  if (filter.before > 0) add("number <", filter.before);
  values.emplace_back(int64_t{filter.limit});
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows, database_.execute("SELECT " + std::string(kColumns) + " FROM jobs" + where +
                                             " ORDER BY number DESC LIMIT $" + std::to_string(values.size()),
                                         values));
  return jobs_of(rows);
}

Result<int64_t> Jobs::position(const Job& job) {
  if (job.state != JobState::kQueued) return int64_t{0};
  // Asked for every new job: a long queue must not make it long.
  TESSERA_ASSIGN_OR_RETURN(
      const Rows rows,
      database_.execute("SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 0 AND "
                        "(priority > $1 OR (priority = $1 AND number < $2)) LIMIT $3) AS ahead",
                        {job.request.priority, job.number, kMostCounted}));
  return integer_at(rows.rows.at(0), 0);
}

Result<QueueStats> Jobs::stats(const std::string& region) {
  QueueStats stats;
  TESSERA_ASSIGN_OR_RETURN(
      const Rows queued,
      database_.execute(
          "SELECT type, count(*) FROM jobs WHERE state = 0 AND ($1 = '' OR region = $1 OR region = '') "
          "GROUP BY type ORDER BY type",
          {region}));
  for (const Row& row : queued.rows) {
    stats.by_type.emplace_back(text_at(row, 0), integer_at(row, 1));
    stats.queued += integer_at(row, 1);
  }
  TESSERA_ASSIGN_OR_RETURN(
      const Rows running,
      database_.execute("SELECT count(*), count(DISTINCT owner) FROM jobs WHERE state = 1"));
  stats.running = integer_at(running.rows.at(0), 0);
  stats.owners = integer_at(running.rows.at(0), 1);
  TESSERA_ASSIGN_OR_RETURN(
      const Rows served,
      database_.execute("SELECT avg(took) FROM (SELECT (ended_ms - started_ms) * 1.0 AS took FROM jobs "
                        "WHERE state >= 2 AND state = 2 ORDER BY ended_ms DESC LIMIT $1) AS lately",
                        {int64_t{kServiceSample}}));
  stats.service_ms = store::real_at(served.rows.at(0), 0);
  return stats;
}

Result<std::vector<WebhookDelivery>> Jobs::take_webhooks(int most) {
  const int64_t now = clock_.unix_time_ms();
  TESSERA_ASSIGN_OR_RETURN(
      const Rows due,
      database_.execute(
          "SELECT count(*) FROM jobs WHERE webhook = 1 AND webhook_due_ms > 0 AND webhook_due_ms <= $1",
          {now}));
  std::vector<WebhookDelivery> deliveries;
  if (integer_at(due.rows.at(0), 0) == 0) return deliveries;
  TESSERA_RETURN_IF_ERROR(database_.transaction([&](Statements& sql) -> Status {
    TESSERA_ASSIGN_OR_RETURN(
        const Rows rows,
        sql.execute("UPDATE jobs SET webhook_attempts = webhook_attempts + 1, webhook_due_ms = $2 "
                    "WHERE number IN (SELECT number FROM jobs WHERE webhook = 1 AND webhook_due_ms > 0 AND "
                    "webhook_due_ms <= $1 ORDER BY webhook_due_ms LIMIT $3)" +
                        returning() + ", webhook_attempts",
                    {now, now + kWebhookLease_ms, int64_t{most}}));
    for (const Row& row : rows.rows) deliveries.push_back({job_of(row), integer_at(row, kColumnCount)});
    return {};
  }));
  return deliveries;
}

Status Jobs::webhook_done(const WebhookDelivery& delivery, bool delivered) {
  const int64_t state = delivered ? 2 : delivery.attempt >= kMostWebhookAttempts ? 3 : 1;
  return database_
      .execute("UPDATE jobs SET webhook = $2, webhook_due_ms = $3 WHERE id = $1 AND webhook_attempts = $4",
               {delivery.job.id, state, clock_.unix_time_ms() + backoff(delivery.attempt).count(),
                delivery.attempt})
      .status();
}

Result<int64_t> Jobs::forget_ended_before(int64_t unix_ms, int most) {
  TESSERA_ASSIGN_OR_RETURN(
      const Rows gone,
      database_.execute("DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE state >= 2 AND "
                        "ended_ms < $1 AND webhook <> 1 ORDER BY ended_ms LIMIT $2)",
                        {unix_ms, int64_t{most}}));
  return gone.changed;
}

}  // namespace tessera::control
