# What the other files ask for.
#
#   terraform output -raw registry

output "registry" {
  description = "REGISTRY of infra/docker and infra/kubernetes."
  value = join("/", [
    "${var.region}-docker.pkg.dev",
    var.project,
    google_artifact_registry_repository.images.repository_id,
  ])
}

output "cache" {
  description = "A --cache."
  value       = "${google_storage_bucket.features.url}/cache"
}

output "dataflow_options" {
  description = "What `framebank extract --runner DataflowRunner` takes besides."
  value = join(" ", [
    "--project=${var.project}",
    "--region=${var.region}",
    "--temp_location=${google_storage_bucket.staging.url}/temp",
    "--staging_location=${google_storage_bucket.staging.url}/staging",
    "--service_account_email=${google_service_account.worker.email}",
    "--impersonate_service_account=${google_service_account.submit.email}",
  ])
}

output "workload_identity" {
  description = "The lines that tie the cluster's service accounts to these."
  value = var.kubernetes_namespace == null ? "" : join("\n", [
    for name, account in {
      flink            = google_service_account.worker.email
      framebank-submit = google_service_account.submit.email
      framebank-train  = google_service_account.train.email
      framebank-serve  = google_service_account.serve.email
    } :
    join(" ", [
      "kubectl --namespace ${var.kubernetes_namespace} annotate serviceaccount ${name}",
      "iam.gke.io/gcp-service-account=${account}",
    ])
  ])
}
