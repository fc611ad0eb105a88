// The statements of one transaction, the same for every database: one that failed has spoiled it. Later ones
// answer the first failure without running, and the transaction is rolled back whatever its body returns.
#pragma once

#include "store/database.h"

namespace tessera::store {

class TransactionStatements final : public Statements {
 public:
  explicit TransactionStatements(Statements& session) : session_(session) {}
  Result<Rows> execute(std::string_view sql, const std::vector<Value>& params) override {
    if (!failure_.ok()) return failure_;
    Result<Rows> result = session_.execute(sql, params);
    failure_ = result.status();
    return result;
  }
  Status script(std::string_view sql) override {
    if (failure_.ok()) failure_ = session_.script(sql);
    return failure_;
  }
  const Status& failure() const { return failure_; }

 private:
  Statements& session_;
  Status failure_;
};

}  // namespace tessera::store
