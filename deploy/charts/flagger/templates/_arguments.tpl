{{/* The operator's flags. Those that have no effect are not passed: NOTES.txt names them. */}}
{{- define "flagger.arguments" -}}
{{- $flags := list (printf "-log-level=%s" (.Values.logLevel | replace "warning" "warn")) -}}
{{- if .Values.leaderElection.enabled -}}
{{- $flags = concat $flags (list "-enable-leader-election=true" (printf "-leader-election-namespace=%s" (include "flagger.leaseNamespace" .))) -}}
{{- end -}}
{{- $server := .Values.prometheus.install | ternary (printf "http://%s-prometheus:9090" (include "flagger.fullname" .)) .Values.metricsServer -}}
{{- $flags = append $flags (printf "-metrics-server=%s" $server) -}}
{{- if eq (toString (.Values.configTracking).enabled) "false" -}}
{{- $flags = append $flags "-enable-config-tracking=false" -}}
{{- end -}}
{{- $texts := dict
  "mesh-provider" .Values.meshProvider
  "namespace" .Values.namespace
  "selector-labels" .Values.selectorLabels
  "include-label-prefix" .Values.includeLabelPrefix
  "ingress-annotations-prefix" .Values.ingressAnnotationsPrefix
  "ingress-class" .Values.ingressClass
  "event-webhook" .Values.eventWebhook
  "release-history" .Values.releaseHistory
  "watch-label-selector" .Values.watchLabelSelector
  "cluster-name" .Values.clusterName
  "slack-user" (.Values.slack).user
  "slack-channel" (.Values.slack).channel
  "slack-url" (.Values.slack).url
  "slack-proxy-url" (.Values.slack).proxyUrl
  "msteams-url" (.Values.msteams).url
  "msteams-proxy-url" (.Values.msteams).proxyUrl
  "allowed-hosts" .Values.allowedHosts
  "no-cross-namespace-refs" .Values.noCrossNamespaceRefs
  "refuse-loopback" .Values.refuseLoopback
  "allow-link-local" .Values.allowLinkLocal -}}
{{- range $name, $value := $texts -}}
{{- if $value -}}
{{- $flags = append $flags (printf "-%s=%v" $name $value) -}}
{{- end -}}
{{- end -}}
{{- if .Values.controlplane.kubeconfig.secretName -}}
{{- $flags = append $flags (printf "-kubeconfig-service-mesh=/tmp/controlplane/%s" .Values.controlplane.kubeconfig.key) -}}
{{- end -}}
{{- concat $flags (.Values.extraArgs | default list) | toYaml -}}
{{- end -}}
