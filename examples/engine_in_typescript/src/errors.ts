// Errors as google.rpc.Status in the trailers: a code, a reason for programs, and the field that is wrong.
import { Metadata, status as codes, type ServiceError } from "@grpc/grpc-js";
import protobuf from "protobufjs";

const { root } = protobuf.parse(
  `syntax = "proto3";
   message Any { string type_url = 1; bytes value = 2; }
   message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
   message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
   message FieldViolation { string field = 1; string description = 2; }
   message BadRequest { repeated FieldViolation field_violations = 1; }`,
);

function packed(type: "ErrorInfo" | "BadRequest", value: object) {
  const bytes = root.lookupType(type).encode(value).finish();
  return { typeUrl: `type.googleapis.com/google.rpc.${type}`, value: bytes };
}

/** An error that a handler throws; it becomes the status of the call. */
export class EngineError extends Error {
  constructor(
    readonly code: codes,
    readonly reason: string,
    message: string,
    readonly field = "",
  ) {
    super(message);
  }

  asServiceError(): ServiceError {
    const details = [packed("ErrorInfo", { reason: this.reason, domain: "accord.dev" })];
    if (this.field) {
      const violation = { field: this.field, description: this.message };
      details.push(packed("BadRequest", { fieldViolations: [violation] }));
    }
    const bytes = root.lookupType("Status").encode({ code: this.code, message: this.message, details }).finish();
    const metadata = new Metadata();
    metadata.set("grpc-status-details-bin", Buffer.from(bytes));
    return Object.assign(new Error(this.message), { code: this.code, details: this.message, metadata, name: "Error" });
  }
}

export function invalid(field: string, description: string): EngineError {
  return new EngineError(codes.INVALID_ARGUMENT, "INVALID_ARGUMENT", `${field}: ${description}`, field);
}

export function precondition(reason: string, message: string): EngineError {
  return new EngineError(codes.FAILED_PRECONDITION, reason, message);
}

export function asServiceError(error: unknown): ServiceError {
  if (error instanceof EngineError) return error.asServiceError();
  return new EngineError(codes.INTERNAL, "UNEXPECTED", String(error)).asServiceError();
}
