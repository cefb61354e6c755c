// node dist/engine.js [PORT]: serves accord.rollout.v1 on loopback until it is killed; PORT 0 or none: a free port.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { type Message } from "./plan.js";
import { asServiceError, Service } from "./service.js";

const example = join(dirname(fileURLToPath(import.meta.url)), "..");
const protos = process.env.ACCORD_PROTOS ?? join(example, "..", "..", "protos");
const definition = loadSync("accord/rollout/v1/rollout_service.proto", {
  includeDirs: [protos, join(example, "stubs")],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});

const service = new Service();

function unary(behaviour: (request: Message) => Message): grpc.handleUnaryCall<Message, Message> {
  return (call, answer) => {
    try {
      answer(null, behaviour(call.request));
    } catch (error) {
      answer(asServiceError(error));
    }
  };
}

const server = new grpc.Server({ "grpc.max_receive_message_length": 64 * 2 ** 20 });
server.addService(definition["accord.rollout.v1.RolloutService"] as grpc.ServiceDefinition, {
  Generate: (call: grpc.ServerWritableStream<Message, Message>) => {
    service.generate(call).catch((error) => call.emit("error", asServiceError(error)));
  },
  UpdateWeights: unary((request) => service.updateWeights(request)),
  PrepareWeights: unary((request) => service.prepareWeights(request)),
  ActivateWeights: unary((request) => service.activateWeights(request)),
  DiscardWeights: unary((request) => service.discardWeights(request)),
  GetStatus: unary(() => service.status()),
  AcquireLease: unary((request) => service.acquireLease(request)),
  ReleaseLease: unary((request) => service.releaseLease(request)),
});
server.bindAsync(`127.0.0.1:${process.argv[2] ?? 0}`, grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(`serving at 127.0.0.1:${port}`);
});
