{{/* The names of the helpers are those of Flagger's chart: users' values (affinity) may refer to them. */}}

{{- define "flagger.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "flagger.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "flagger.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "flagger.serviceAccountName" -}}
{{- default (.Values.serviceAccount.create | ternary (include "flagger.fullname" .) "default") .Values.serviceAccount.name -}}
{{- end -}}

{{/* The labels of a user as texts, also if they are numbers. */}}
{{- define "flagger.texts" -}}
{{- range $name, $value := . }}
{{ $name | quote }}: {{ $value | quote }}
{{- end -}}
{{- end -}}

{{/* A Deployment's selector cannot change: these are the labels of Flagger's chart, so that an upgrade keeps the Deployment. */}}
{{- define "flagger.selector" -}}
app.kubernetes.io/name: {{ include "flagger.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "flagger.labels" -}}
helm.sh/chart: {{ include "flagger.chart" . }}
{{ include "flagger.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "flagger.prometheus.selector" -}}
app.kubernetes.io/name: {{ include "flagger.name" . }}-prometheus
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "flagger.dashboard.selector" -}}
app.kubernetes.io/name: {{ include "flagger.name" . }}-dashboard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Not empty if the values name an image of Flagger's own: its probes and flags are others. */}}
{{- define "flagger.foreignImage" -}}
{{- if regexMatch "(^|/)(fluxcd|weaveworks)/flagger$" (toString .Values.image.repository) }}true{{ end -}}
{{- end -}}

{{- define "flagger.image" -}}
{{- if include "flagger.foreignImage" . -}}
ghcr.io/flagger-rs/flagger:{{ .Chart.AppVersion }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Without a leader election, two operators would write at the same time. */}}
{{- define "flagger.replicas" -}}
{{- .Values.leaderElection.enabled | ternary .Values.leaderElection.replicaCount 1 -}}
{{- end -}}

{{/* The Lease is in the namespace of the flag -namespace, if that is set. */}}
{{- define "flagger.leaseNamespace" -}}
{{- .Values.namespace | default .Release.Namespace -}}
{{- end -}}

{{/* The parts of files/rights.yaml that the operator gets: those of meshProvider and of rbac.providers. */}}
{{- define "flagger.routers" -}}
{{- $rights := .Files.Get "files/rights.yaml" | fromYaml -}}
{{- $routers := list -}}
{{- range $wanted := prepend (.Values.rbac.providers | default list) (.Values.meshProvider | default "istio") -}}
{{- if eq $wanted "*" -}}
{{- $routers = concat $routers (keys $rights.routers) -}}
{{- else if hasKey $rights.routers $wanted -}}
{{- $routers = append $routers $wanted -}}
{{- end -}}
{{- $found := false -}}
{{- range $rights.providers -}}
{{- if and (not $found) (or (eq .name $wanted) (and .isPrefix (hasPrefix .name $wanted))) -}}
{{- $found = true -}}
{{- $routers = concat $routers .routers -}}
{{- end -}}
{{- end -}}
{{- if not (or $found (eq $wanted "*") (hasKey $rights.routers $wanted)) -}}
{{- $routers = append $routers "istio" -}}
{{- end -}}
{{- end -}}
{{- $routers | uniq | sortAlpha | toJson -}}
{{- end -}}

{{- define "flagger.rules" -}}
{{- $rights := .Files.Get "files/rights.yaml" | fromYaml -}}
{{- $rules := $rights.base -}}
{{- range include "flagger.routers" . | fromJsonArray -}}
{{- $rules = concat $rules (get $rights.routers .) -}}
{{- end -}}
{{- $rules | uniq | toYaml -}}
{{- end -}}

{{/* Values that files/known-values.yaml has not. */}}
{{- define "flagger.unknown" -}}
{{- range $key, $value := .values -}}
{{- $path := printf "%s%s" $.prefix $key -}}
{{- if not (hasKey $.known $key) }}
* {{ $path }}: this chart does not know it.
{{- else if and (kindIs "map" $value) (kindIs "map" (get $.known $key)) -}}
{{- include "flagger.unknown" (dict "values" $value "known" (get $.known $key) "prefix" (printf "%s." $path)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Values without effect, a line for each. */}}
{{- define "flagger.withoutEffect" -}}
{{- if include "flagger.foreignImage" . }}
* image.repository, image.tag: {{ .Values.image.repository }} is Flagger's image. {{ include "flagger.image" . }} is run instead.
{{- end }}
{{- if .Values.threadiness }}
* threadiness: Canaries never wait for each other.
{{- end }}
{{- if .Values.kubeconfigQPS }}
* kubeconfigQPS: the operator sends few requests, and does not limit them.
{{- end }}
{{- if .Values.kubeconfigBurst }}
* kubeconfigBurst: the operator sends few requests, and does not limit them.
{{- end }}
{{- if .Values.rbac.pspEnabled }}
* rbac.pspEnabled: Kubernetes has no PodSecurityPolicies since 1.25.
{{- end }}
{{- if .Values.slack.proxy }}
* slack.proxy: the name of this value is slack.proxyUrl.
{{- end }}
{{- if and (not .Values.leaderElection.enabled) (gt (int .Values.leaderElection.replicaCount) 1) }}
* leaderElection.replicaCount: without leaderElection.enabled there is one replica, because two would write at the same time.
{{- end }}
{{- if and .Values.podDisruptionBudget.enabled (lt (int (include "flagger.replicas" .)) 2) }}
* podDisruptionBudget.minAvailable: with one replica it would let no node be drained. The budget allows that instead.
{{- end }}
{{- if and .Values.rbac.providers (not .Values.rbac.create) }}
* rbac.providers: rbac.create is false.
{{- end }}
{{- if and .Values.prometheus.install (ne .Values.metricsServer "http://prometheus:9090") }}
* metricsServer: prometheus.install is true, so the operator queries that Prometheus.
{{- end }}
{{- $known := .Files.Get "files/known-values.yaml" | fromYaml }}
{{- include "flagger.unknown" (dict "values" .Values "known" $known "prefix" "") }}
{{- end -}}
