-- Health of a SealedEnv by its own conditions. Ready is False only for a fault; what passes by itself is Unknown.
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "being deleted" }
end
if obj.spec ~= nil and obj.spec.suspend then
  return { status = "Suspended", message = "suspended; the Secret stays as it is" }
end

local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready, reconciling, stalled = conditions.Ready, conditions.Reconciling, conditions.Stalled

local generation = obj.metadata.generation
if status.observedGeneration == nil or status.observedGeneration ~= generation then
  -- Not handled yet, but it may already say what it waits for.
  local told = ready ~= nil and ready.observedGeneration == generation
  return { status = "Progressing", message = told and ready.message or "waiting for the operator" }
end

if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end
if reconciling ~= nil and reconciling.status == "True" then
  return { status = "Progressing", message = reconciling.message }
end
if ready == nil or ready.status == "Unknown" then
  return { status = "Progressing", message = ready ~= nil and ready.message or "waiting for the operator" }
end
if ready.status ~= "True" then
  return { status = "Degraded", message = ready.message }
end

local requested = (obj.metadata.annotations or {})["sealedenv.dev/requestedAt"]
if requested ~= nil and requested ~= status.lastHandledReconcileAt then
  return { status = "Progressing", message = "waiting for the reconcile that was asked for" }
end
return { status = "Healthy", message = ready.message }
