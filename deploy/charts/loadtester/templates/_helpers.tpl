{{- define "loadtester.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "loadtester.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "loadtester.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "loadtester.labels" -}}
helm.sh/chart: {{ include "loadtester.chart" . }}
app.kubernetes.io/name: {{ include "loadtester.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The labels of a user as texts, also if they are numbers. */}}
{{- define "loadtester.texts" -}}
{{- range $name, $value := . }}
{{ $name | quote }}: {{ $value | quote }}
{{- end -}}
{{- end -}}

{{/* A Deployment's selector cannot change: this is that of Flagger's chart, so that an upgrade keeps the Deployment. */}}
{{- define "loadtester.selector" -}}
app: {{ include "loadtester.name" . }}
{{- end -}}

{{- define "loadtester.serviceAccountName" -}}
{{- default (.Values.rbac.create | ternary (include "loadtester.fullname" .) "") .Values.serviceAccountName -}}
{{- end -}}

{{/* Not empty if the values name an image of Flagger's own. */}}
{{- define "loadtester.foreignImage" -}}
{{- if regexMatch "(^|/)(fluxcd|weaveworks)/flagger-loadtester$" (toString .Values.image.repository) }}true{{ end -}}
{{- end -}}

{{- define "loadtester.image" -}}
{{- if include "loadtester.foreignImage" . -}}
ghcr.io/flagger-rs/flagger-loadtester:{{ .Chart.AppVersion }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "loadtester.arguments" -}}
{{- $flags := list "-port=8080" (printf "-log-level=%s" (.Values.logLevel | replace "warning" "warn")) (printf "-timeout=%s" .Values.cmd.timeout) -}}
{{- if .Values.cmd.namespaceRegexp -}}
{{- $flags = append $flags (printf "-namespace-regexp=%s" .Values.cmd.namespaceRegexp) -}}
{{- end -}}
{{- concat $flags (.Values.extraArgs | default list) | toYaml -}}
{{- end -}}

{{/* Values that files/known-values.yaml has not. */}}
{{- define "loadtester.unknown" -}}
{{- range $key, $value := .values -}}
{{- $path := printf "%s%s" $.prefix $key -}}
{{- if not (hasKey $.known $key) }}
* {{ $path }}: this chart does not know it.
{{- else if and (kindIs "map" $value) (kindIs "map" (get $.known $key)) -}}
{{- include "loadtester.unknown" (dict "values" $value "known" (get $.known $key) "prefix" (printf "%s." $path)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Values without effect, a line for each. */}}
{{- define "loadtester.withoutEffect" -}}
{{- if include "loadtester.foreignImage" . }}
* image.repository, image.tag: {{ .Values.image.repository }} is Flagger's image. {{ include "loadtester.image" . }} is run instead.
{{- end }}
{{- if and .Values.backends (not .Values.meshName) }}
* backends: meshName is empty.
{{- end }}
{{- if and (.Values.istio.gateway).enabled (not .Values.istio.enabled) }}
* istio.gateway: istio.enabled is false.
{{- end }}
{{- if and .Values.rbac.rules (not .Values.rbac.create) }}
* rbac.rules: rbac.create is false.
{{- end }}
{{- if and .Values.rbac.create .Values.serviceAccountName }}
* rbac.rules: the pod has the ServiceAccount {{ .Values.serviceAccountName }}, and the rules are those of {{ include "loadtester.fullname" . }}.
{{- end }}
{{- $known := .Files.Get "files/known-values.yaml" | fromYaml }}
{{- include "loadtester.unknown" (dict "values" .Values "known" $known "prefix" "") }}
{{- end -}}
