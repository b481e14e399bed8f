{{/* The chart's short name. */}}
{{- define "sealedenv.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/*
Prefix of every name. Short enough that "-operator" and "-webhook" still fit into a DNS label.
A release called like the chart gives just that name.
*/}}
{{- define "sealedenv.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "sealedenv.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sealedenv.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* What a Deployment selects by. Call with (dict "root" $ "component" "operator"). */}}
{{- define "sealedenv.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sealedenv.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of a component's objects. */}}
{{- define "sealedenv.componentLabels" -}}
{{ include "sealedenv.selectorLabels" . }}
{{ include "sealedenv.sharedLabels" .root }}
{{- end }}

{{/* Labels of objects that belong to no component. */}}
{{- define "sealedenv.labels" -}}
app.kubernetes.io/name: {{ include "sealedenv.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "sealedenv.sharedLabels" . }}
{{- end }}

{{- define "sealedenv.sharedLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sealedenv
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* repository:tag or repository@digest. global.imageRegistry takes the place of the repository's host. */}}
{{- define "sealedenv.image" -}}
{{- $repository := .Values.image.repository }}
{{- with .Values.global.imageRegistry }}
{{- $parts := splitList "/" $repository }}
{{- if and (gt (len $parts) 1) (regexMatch "[.:]|^localhost$" (first $parts)) }}
{{- $parts = rest $parts }}
{{- end }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (join "/" $parts) }}
{{- end }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "sealedenv.operator.serviceAccountName" -}}
{{- $own := .Values.operator.serviceAccount.create | ternary (printf "%s-operator" (include "sealedenv.fullname" .)) "default" }}
{{- default $own .Values.operator.serviceAccount.name }}
{{- end }}

{{- define "sealedenv.webhook.serviceAccountName" -}}
{{- $own := .Values.webhook.serviceAccount.create | ternary (printf "%s-webhook" (include "sealedenv.fullname" .)) "default" }}
{{- default $own .Values.webhook.serviceAccount.name }}
{{- end }}

{{/* Flags that both components take. Call with (dict "root" $ "extra" .Values.operator.extraArgs). */}}
{{- define "sealedenv.sharedArgs" -}}
{{- $audit := .root.Values.audit -}}
{{- if not (or $audit.stdout $audit.file.enabled) -}}
{{- fail "audit: both audit.stdout and audit.file.enabled are off, so there is nowhere to record to. Turn one on." -}}
{{- end -}}
- --http-listen=0.0.0.0:8080
{{- if $audit.file.enabled }}
- --audit-file=/var/lib/sealedenv/audit/audit.jsonl
{{- end }}
{{- if $audit.stdout }}
- --audit-stdout
{{- end }}
- --audit-failure-policy={{ lower $audit.failurePolicy }}
- --log-format={{ .root.Values.log.format }}
- --log-level={{ .root.Values.log.level }}
{{- range $name, $value := .extra }}
- {{ printf "--%s=%s" $name (kindIs "string" $value | ternary $value (toJson $value)) | quote }}
{{- end }}
{{- end }}

{{/* What belongs to a CRD's metadata besides its name. */}}
{{- define "sealedenv.crdMetadata" -}}
labels:
  {{- include "sealedenv.labels" . | nindent 2 }}
{{- if or .Values.crds.keep .Values.crds.annotations }}
annotations:
  {{- if .Values.crds.keep }}
  helm.sh/resource-policy: keep
  {{- end }}
  {{- with .Values.crds.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
Where the webhooks are called. By the label that the API server itself puts on every namespace, so nobody can
switch a namespace off by relabelling it. Not in kube-system, which must come up without us, and not in our own
namespace, where we would have to admit ourselves.
*/}}
{{- define "sealedenv.webhook.namespaceSelector" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      {{- concat (list "kube-system" (include "sealedenv.namespace" .)) .Values.webhook.excludedNamespaces | uniq | toYaml | nindent 6 }}
  {{- with .Values.operator.watchNamespaces }}
  - key: kubernetes.io/metadata.name
    operator: In
    values:
      {{- toYaml . | nindent 6 }}
  {{- end }}
{{- end }}

{{/* Constraints on where pods stand; one without a selector is about the component's own pods. */}}
{{- define "sealedenv.topologySpread" -}}
{{- $selector := dict "labelSelector" (dict "matchLabels" (include "sealedenv.selectorLabels" .component | fromYaml)) }}
{{- $constraints := list }}
{{- range .constraints }}
{{- $constraints = append $constraints (hasKey . "labelSelector" | ternary . (merge (dict) . $selector)) }}
{{- end }}
{{- toYaml $constraints }}
{{- end }}

{{/* The Secret that cert-manager keeps the webhook's certificate in. */}}
{{- define "sealedenv.webhook.certificateSecret" -}}
{{ include "sealedenv.fullname" . }}-webhook-tls
{{- end }}

{{/* Who writes caBundle, where cert-manager does. */}}
{{- define "sealedenv.webhook.injectorAnnotations" -}}
{{- $manager := .Values.webhook.certManager -}}
{{- if and $manager.enabled $manager.addInjectorAnnotations -}}
annotations:
  {{- if $manager.cert.create }}
  cert-manager.io/inject-ca-from: {{ include "sealedenv.namespace" . }}/{{ include "sealedenv.fullname" . }}-webhook
  {{- else }}
  cert-manager.io/inject-ca-from-secret: {{ include "sealedenv.namespace" . }}/{{ include "sealedenv.webhook.certificateSecret" . }}
  {{- end }}
{{- end -}}
{{- end }}

{{- define "sealedenv.metricsServices" -}}
{{- if or .Values.metrics.service.enabled .Values.serviceMonitor.enabled }}true{{ end }}
{{- end }}
