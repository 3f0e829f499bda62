// Judges requests as AWS's IAM does, with a simulator that others wrote: one JSON question a line in, one answer a line out.
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const folder = process.argv[2]
const { runSimulation } = await import(
  pathToFileURL(createRequire(folder + '/node_modules/').resolve('@cloud-copilot/iam-simulate')).href
)
for await (const line of createInterface({ input: process.stdin })) {
  const { policy, action, arn, account, context } = JSON.parse(line)
  const everyone = { Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${account}:root` }, Action: 'kms:*', Resource: '*' }
  const answer = await runSimulation(
    {
      request: {
        principal: `arn:aws:iam::${account}:user/holder`,
        action,
        resource: { resource: arn, accountId: account },
        contextVariables: context,
      },
      identityPolicies: [{ name: 'policy', policy }],
      resourcePolicy: arn.includes(':key/') ? { Version: '2012-10-17', Statement: [everyone] } : undefined,
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {},
  )
  const errors = answer.resultType === 'error' || answer.errors ? (answer.errors ?? answer) : null
  console.log(JSON.stringify({ allowed: answer.overallResult === 'Allowed', errors }))
}
